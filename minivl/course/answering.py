"""The process that runs a student's code: it answers questions, and knows no right answers.

It runs as a script of its own (`python -P answering.py`), with PyTorch imported and nothing of MiniVL. Where there is
`fork`, it is started once, and each task runs in a child of it: warm in milliseconds, gone without a trace. Elsewhere
it is started anew for each task. What comes back is tensors in safetensors and text in JSON, never a pickle.

    grader → here (control)    {"folder": …, "log": …, "memory": bytes, "seconds": of processor time, "sealed": paths}
    grader → child             {"driver": …, "options": …} and tensors
    child → grader             tensors, or {"fault": …}; while it answers, {"remote": …} for what the grader must do
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from pathlib import Path

import einops
import torch
from safetensors.torch import load, save

LARGEST = 1 << 26  # bytes of one message
DENIED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg",
          "socket.connect", "socket.bind", "ctypes.dlopen")  # fmt: skip


class Channel:
    """Messages over a pair of files: a JSON text and tensors by name."""

    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing = incoming, outgoing

    def send(self, text: dict, tensors: dict[str, torch.Tensor] | None = None) -> None:
        tensors = {name: x.detach().cpu().contiguous().clone() for name, x in (tensors or {}).items()}
        head, body = json.dumps(text).encode(), save(tensors)
        self.outgoing.write(struct.pack("<QQ", len(head), len(body)) + head + body)
        self.outgoing.flush()

    def receive(self) -> tuple[dict, dict[str, torch.Tensor]] | None:
        """The next message; None where there will be no more."""
        sizes = self._exactly(16)
        if sizes is None:
            return None
        head_size, body_size = struct.unpack("<QQ", sizes)
        if head_size > LARGEST or body_size > LARGEST:
            raise ValueError(f"a message of {head_size + body_size:,} bytes is too large to be an answer")
        head, body = self._exactly(head_size), self._exactly(body_size)
        if head is None or body is None:
            return None
        return json.loads(head), load(body)

    def _exactly(self, size: int) -> bytes | None:
        content = b""
        while len(content) < size:
            piece = self.incoming.read(size - len(content))
            if not piece:
                return None
            content += piece
        return content


def drivers():
    """asking/, which lies beside this file, loaded as itself and not as part of MiniVL."""
    if "asking" not in sys.modules:
        home = Path(__file__).with_name("asking")
        places = {"submodule_search_locations": [str(home)]}
        spec = importlib.util.spec_from_file_location("asking", home / "__init__.py", **places)
        sys.modules["asking"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["asking"])
    return sys.modules["asking"]


def told(fault: BaseException, folder: str) -> dict:
    """What went wrong, and at which line of the student's."""
    places = [place for place in traceback.extract_tb(fault.__traceback__) if place.filename.startswith(folder)]
    where = ""
    if isinstance(fault, SyntaxError):
        where = f"{Path(fault.filename or '').name}, line {fault.lineno}: {(fault.text or '').strip()}"
    elif places and not isinstance(fault, NotImplementedError):
        where = f"{Path(places[-1].filename).name}, {places[-1].name}: {places[-1].line}"
    return {"fault": type(fault).__name__, "says": " ".join(str(fault).split())[:300], "where": where[:300]}


def limited(job: dict) -> None:
    """Limits of this process, where the system knows them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + job["memory"], now + job["memory"]))


def sealed(paths: list[str], folder: str) -> None:
    """From now on no file below these paths is opened, and no program is started, by what Python can see of it. The
    student's own folder and what is installed stay open, wherever they lie."""
    paths = [os.path.join(os.path.realpath(path), "") for path in paths]
    allowed = tuple(os.path.join(os.path.realpath(path), "") for path in (sys.prefix, sys.base_prefix, folder))
    busy = threading.local()

    def watch(event: str, arguments: tuple) -> None:
        if event in DENIED:
            raise PermissionError(f"{event} is not for use while graded")
        if event == "open" and isinstance(arguments[0], str | bytes) and not getattr(busy, "on", False):
            busy.on = True
            try:
                path = os.path.realpath(os.fsdecode(arguments[0]))
            finally:
                busy.on = False
            if not path.startswith(allowed) and any(path.startswith(one) for one in paths):
                raise PermissionError("this file is not for use while graded")

    sys.addaudithook(watch)


def serve(channel: Channel, job: dict) -> None:
    """Answer until there are no more questions."""
    folder = os.path.realpath(job["folder"])
    asking = drivers()
    os.chdir(folder)
    find = asking.finder(folder)
    limited(job)
    sealed(job["sealed"], folder)

    def remote(name: str, tensors: dict, **options) -> dict:
        """What the grader does for the student's code, and this process may not know how."""
        channel.send({"remote": name, "options": options}, tensors)
        message = channel.receive()
        if message is None:
            raise EOFError("the grader has gone")
        if "fault" in message[0]:
            raise ValueError(message[0]["says"])
        return message[1]

    while (message := channel.receive()) is not None:
        text, tensors = message
        try:
            helps = remote if text["remote"] else None
            answer = asking.answered(find, text["driver"], tensors, text["options"], helps)
            channel.send({}, answer)
        except BaseException as fault:
            channel.send(told(fault, folder))


def run(channel: Channel, job: dict) -> None:
    """`serve` in a process that is about to end: what it prints goes to a file, and nothing of it comes back."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        serve(channel, job)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def fork_for_each(control: socket.socket) -> None:
    """Take a job and its channel, fork, and go on; end a child when told to."""
    while True:
        message, handles, _, _ = socket.recv_fds(control, 1 << 20, 1)
        if not message:
            return
        job = json.loads(message)
        pid = os.fork()
        if pid == 0:
            os.setsid()  # and `run` puts something else in the place of `control`, which is file 0
            with os.fdopen(handles[0], "rb") as incoming, os.fdopen(os.dup(handles[0]), "wb") as outgoing:
                run(Channel(incoming, outgoing), job)
        os.close(handles[0])
        control.recv(1)  # the grader has all it wants, or has lost its patience
        for end in (os.killpg, os.kill):  # the second for a child that is not yet a group of its own
            with contextlib.suppress(ProcessLookupError):
                end(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        control.sendall(struct.pack("<i", os.waitstatus_to_exitcode(status)))


def warmed() -> None:
    """What PyTorch and einops import at their first use, which takes seconds, is imported before the first fork."""
    torch.set_num_threads(1)
    if "TRITON_INTERPRET" in os.environ and importlib.util.find_spec("triton"):
        importlib.import_module("triton")
    x = torch.ones(2, 2)
    with drivers().Operations():
        torch.einsum("ij,jk->ik", x, einops.rearrange(x, "i j -> j i"))


def main() -> None:
    if sys.argv[1:] == ["fork"]:
        warmed()
        control = socket.socket(fileno=0)
        control.sendall(b"w")
        fork_for_each(control)
        return
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    channel = Channel(incoming, outgoing)
    torch.set_num_threads(1)
    job, _ = channel.receive()
    run(channel, job)


if __name__ == "__main__":
    main()
