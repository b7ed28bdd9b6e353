"""The grader's side of the process that runs a student's code: it starts, asks, loses patience, and ends it.

With `fork` there is one warm process for all tasks and students; it is started again should it be gone. Without, each
task waits for an import of torch. Time is limited everywhere; memory and processor time where the system has limits
(Linux; elsewhere `limits()` says what is not).
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .answering import Channel
from .sources import ROOT, Tree
from .tasks import Answer, Question

SCRIPT = Path(__file__).with_name("answering.py")
# No folder of ours on the path; and what a student's code is warned of is not our reader's business.
RUN = [sys.executable, "-P", "-W", "ignore", str(SCRIPT)]
NUMBERS = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
}
FORKS = hasattr(os, "fork") and hasattr(socket, "send_fds") and sys.platform != "darwin"


class Ended(Exception):
    """The student's process gives no more answers; says why."""


def limits() -> str:
    """What is limited on this machine, for the report."""
    if sys.platform == "linux":
        return "time, processor time, memory and file size are limited"
    if sys.platform == "win32":
        return "time is limited; memory is not, on Windows: a container can do it"
    return "time, processor time and file size are limited; memory is not, on this system: a container can do it"


def is_answer(text: object, tensors: dict[str, Tensor]) -> bool:
    """Of the form that an answer has, whatever is in it: a student's code can send anything."""
    return isinstance(text, dict) and all(x.dtype in NUMBERS for x in tensors.values())


class Student:
    """One process with one tree of sources. Ask it until it ends; leaving the context ends it."""

    def __init__(self, workshop: "Workshop", tree: Tree, *, seconds: float, gigabytes: float):
        self.workshop, self.seconds = workshop, seconds
        self.home = tempfile.TemporaryDirectory(prefix="minivl-grading-", ignore_cleanup_errors=True)
        folder = Path(self.home.name)
        write(tree, folder / "work")
        self.log = folder / "log"
        self.job = {
            "folder": str(folder / "work"),
            "log": str(self.log),
            "memory": int(gigabytes * 2**30),
            "seconds": int(seconds) + 1,
            "sealed": [str(ROOT)],
        }
        self.left = seconds
        self.ended: str | None = None

    def __enter__(self) -> "Student":
        try:
            self.channel, self.interrupt, self.finish = self.workshop.start(self.job)
        except BaseException:
            self.home.cleanup()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.finish()
        self.home.cleanup()

    def ask(self, question: Question, remote: Callable[..., dict[str, Tensor]] | None = None) -> Answer:
        """The answer. A fault of the function's is a Fault; what the process does not survive is Ended."""
        if self.ended:
            raise Ended(self.ended)
        try:
            self._send({"driver": question.driver, "options": question.options, "remote": bool(remote)},
                       question.tensors)  # fmt: skip
            while True:
                text, tensors = self._receive()
                if "remote" not in text:
                    break
                try:
                    answer = remote(text["remote"], tensors, **text["options"])
                except Exception as fault:  # whatever it asks for: it is told, and it alone
                    answer = None
                    self._send({"fault": type(fault).__name__, "says": str(fault)[:300]})
                if answer is not None:
                    self._send({}, answer)
        except Ended as end:
            self.ended = str(end)
            raise
        if "fault" in text:
            raise Fault(*(str(text.get(name, ""))[:300] for name in ("fault", "says", "where")))
        return tensors

    def _send(self, text: dict, tensors: dict[str, Tensor] | None = None) -> None:
        try:
            self.channel.send(text, tensors)
        except OSError:
            raise Ended(f"the process ended by itself{self._printed()}") from None

    def _receive(self) -> tuple[dict, dict[str, Tensor]]:
        start, message, broken = time.monotonic(), None, False
        patience = threading.Timer(max(self.left, 0), self.interrupt)
        patience.start()
        try:
            message = self.channel.receive()
            broken = message is not None and not is_answer(*message)
        except Exception:  # whatever a broken message breaks
            broken = True
        patience.cancel()
        self.left -= time.monotonic() - start
        if broken and self.left > 0:
            raise Ended("the process sent what is no answer")
        if self.left <= 0:
            raise Ended(f"no answer within {self.seconds:g} seconds: is there a loop without an end?")
        if message is None:
            raise Ended(f"the process ended by itself{self._printed()}")
        return message

    def _printed(self) -> str:
        """The last words on its stderr."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f", after printing {last[:120]!r}" if last else ""


class Fault(Exception):
    """An exception of the student's function: its type, its words and its line."""

    def __init__(self, kind: str, says: str, where: str):
        super().__init__(f"{kind}: {says}" + (f" (at {where})" if where else ""))
        self.kind, self.says, self.where = kind, says, where


class Workshop:
    """Where processes come from. `fork=False` starts each anew, as on systems that cannot fork."""

    def __init__(self, *, fork: bool = FORKS, interpret_triton: bool = False):
        self.fork = fork
        self.environment = {name: x for name, x in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
        self.environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if interpret_triton:
            self.environment["TRITON_INTERPRET"] = "1"
        self.warm: subprocess.Popen | None = None

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_) -> None:
        if self.warm is not None:
            self.control.close()
            self.warm.kill()
            self.warm.wait()
            self.warm = None

    def start(self, job: dict) -> tuple[Channel, Callable[[], None], Callable[[], None]]:
        """(channel, what interrupts a wait for an answer, what ends it all)."""
        return self._forked(job) if self.fork else self._spawned(job)

    def _forked(self, job: dict):
        ours, theirs = socket.socketpair()
        for _ in range(2):  # the warm process may have been killed by a student's code; then there is a new one
            try:
                self._warmed()
                socket.send_fds(self.control, [json.dumps(job).encode()], [theirs.fileno()])
                break
            except OSError:
                self.__exit__()
        theirs.close()
        incoming, outgoing = ours.makefile("rb", buffering=0), ours.makefile("wb")

        def interrupt() -> None:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)

        def finish() -> None:
            ours.close()
            try:
                self.control.settimeout(5)
                self.control.sendall(b"e")
                if len(self.control.recv(4)) < 4:
                    raise OSError("the warm process has gone")
            except OSError:
                self.__exit__()

        return Channel(incoming, outgoing), interrupt, finish

    def _warmed(self) -> None:
        if self.warm is not None and self.warm.poll() is not None:
            self.__exit__()
        if self.warm is None:
            self.control, theirs = socket.socketpair()
            self.warm = subprocess.Popen([*RUN, "fork"], stdin=theirs, env=self.environment)
            theirs.close()
            self.control.settimeout(120)
            if self.control.recv(1) != b"w":
                self.__exit__()
                raise RuntimeError("the process that grades could not start; its reason stands above")
            self.control.settimeout(None)

    def _spawned(self, job: dict):
        options = {"start_new_session": True} if os.name == "posix" else {}
        process = subprocess.Popen(
            RUN,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, **options,
        )  # fmt: skip
        channel = Channel(process.stdout, process.stdin)
        channel.send(job)

        def finish() -> None:
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stdin):
                with contextlib.suppress(OSError):
                    pipe.close()

        return channel, process.kill, finish


def write(tree: Tree, folder: Path) -> None:
    for path, text in tree.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
