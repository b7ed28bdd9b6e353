"""Runs of training that are killed, and runs of several processes, for the tests: forked, so that all start at once.

    python -m tests.train_processes FOLDER      one line of JSON for each moment of death and each way to run in two

A killed process has no chance to clear up: it sends itself SIGKILL when it has made so many calls in minivl/train.
"""

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # before the forks, since it takes a second
import torch.distributed as dist

from minivl import config_file
from minivl.train import freezing, handing_over, progress, saving, stages, trainer
from minivl.train.distributed import Processes, gathered, processes
from minivl.train.objectives import AnswerTuning, LayerDistillation
from minivl.train.settings import Settings

from .fakes import tiny_folder
from .training import Endless, student, teacher

STEPS = 5
MOMENTS = 6
HERE = str(Path(trainer.__file__).parent)


def forked(*works) -> list[int]:
    """Run these at once, each in a process of its own; their exit codes, or minus the signal that killed them."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:  # whatever it is, a forked child must not go on as its parent
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


# Kills


def run(out: Path) -> None:
    folder = tiny_folder(layer_types=("sliding_attention", "linear_attention"))
    settings = Settings(steps=STEPS, batch=2, save_every=2, learning_rate=1e-2)
    data = Endless(config_file.read(folder))
    stages.tune(folder, data, out, settings, any_start=True, device="cpu", quiet=True)


def counted(work, at: int | None = None) -> int:
    """The calls that minivl/train makes, of Python's functions and C's; at number `at` the process dies."""
    calls = 0

    def look(frame, event: str, _) -> None:
        nonlocal calls
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(HERE):
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def left_by(out: Path) -> dict:
    """What a finished run has left, but for times."""
    return {
        "steps": [int(row["step"]) for row in progress.rows(out / trainer.LOG)],
        "losses": [row["loss"] for row in progress.rows(out / trainer.LOG)],
        "gradients": [row["gradient"] for row in progress.rows(out / trainer.LOG)],
        "weights": handing_over.digest(out / handing_over.RESULT),
        "drafts": [path.name for path in out.rglob("*.draft*")],
    }


def cut_short(name: str) -> None:
    """The file is half there when death comes."""
    write = getattr(saving, name)

    def half(tensors, path):
        write(tensors, path)
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(saving, name, half)


def half_a_row(path: Path) -> None:
    def add(log, **row):
        log._file.write("3,0.12")
        log._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    progress.Log.add = add
    run(path)


def half_a_file(path: Path) -> None:
    cut_short("save_file")
    run(path)


def full_disk(path: Path) -> None:
    """From the second checkpoint on no file may grow beyond 20 kB: checkpoints are larger."""
    save = saving.save

    def save_with_no_room(folder: Path, saved: saving.Saved) -> None:
        if saved.step > 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        save(folder, saved)

    saving.save = save_with_no_room
    try:
        run(path)
    except OSError as fault:
        (path / "said").write_text(str(fault))


def kills(home: Path) -> None:
    tiny_folder(layer_types=("sliding_attention", "linear_attention"))  # made once, before the forks
    whole, count = home / "whole", home / "count"
    assert forked(lambda: count.write_text(str(counted(lambda: run(whole))))) == [0]
    wanted, total = left_by(whole), int(count.read_text())
    spread = [1 + total * i // (MOMENTS + 1) + 7 * i for i in range(1, MOMENTS + 1)]
    ways = {f"call {at} of {total}": lambda out, at=at: counted(lambda: run(out), at) for at in spread}
    ways |= {"in the middle of a row": half_a_row, "in the middle of a checkpoint's file": half_a_file}
    ways |= {"with a full disk": full_disk}
    for number, (name, way) in enumerate(ways.items()):
        out = home / str(number)
        (code,) = forked(lambda way=way, out=out: way(out))
        half = [path.name for path in saving.checkpoints(out / "checkpoints")] if out.exists() else []
        (again,) = forked(lambda out=out: run(out))
        said = (out / "said").read_text() if (out / "said").exists() else ""
        same = again == 0 and left_by(out) == wanted
        print(json.dumps({"when": name, "code": code, "checkpoints": half, "again": again, "same": same, "said": said}))
    print(json.dumps({"when": "never", "steps": wanted["steps"], "losses": wanted["losses"]}))


# Several processes


def spread_run(out: Path, way: str, stage: str, *, stop: int | None = None) -> None:
    taught = teacher()
    learner = student(taught)
    objective = AnswerTuning(learner) if stage == "tuning" else LayerDistillation(learner, taught)
    freezing.freeze(learner, freezing.LEARNS["teacher" if stage == "tuning" else "layers"])
    settings = Settings(steps=2, batch=4, spread=way, save_every=1, learning_rate=1e-2)
    length, seen = trainer.gradient_length, {}

    def look(parameters):
        if not seen:
            grads = {name: x.grad.clone() for name, x in freezing.learning(learner).items()}
            seen.update(gathered(grads, group))
            if group.first:
                torch.save(seen, out / "gradients.pt")
            seen["looked"] = True
        return length(parameters)

    class Stop(Exception):
        pass

    def stepped(step: int, loss: float) -> None:
        if step == stop:
            raise Stop

    trainer.gradient_length = look
    with processes() as group:
        out.mkdir(exist_ok=True)
        try:
            trainer.train(
                objective, Endless(learner.config), out, settings, group=group, quiet=True, stepped=stepped
            )  # fmt: skip
        except Stop:
            return
        weights = gathered(learner.state_dict(), group)
        if group.first:
            torch.save(weights, out / "weights.pt")


def together(count: int, work, meeting: Path) -> list[int]:
    """`count` processes that find one another through a file."""

    def one(rank: int) -> None:
        os.environ |= {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
        work()
        dist.destroy_process_group()

    return forked(*(lambda rank=rank: one(rank) for rank in range(count)))


def apart(one: Path, other: Path, name: str) -> float:
    """The largest relative difference of the tensors in two files."""
    a, b = (torch.load(folder / name) for folder in (one, other))
    assert set(a) == set(b)
    return max(((a[key] - b[key]).norm() / (b[key].norm() + 1e-12)).item() for key in a)


def spread(home: Path) -> None:
    for stage, ways in {"tuning": ("ddp", "fsdp"), "layers": ("fsdp",)}.items():
        alone = home / f"alone-{stage}"
        assert forked(lambda alone=alone, stage=stage: spread_run(alone, "ddp", stage)) == [0]
        for way in ways:
            out = home / f"{way}-{stage}"
            codes = together(2, lambda out=out, way=way, stage=stage: spread_run(out, way, stage), home / f"{out}.met")
            differ = {name: apart(out, alone, f"{name}.pt") for name in ("gradients", "weights")}
            rows = [progress.rows(folder / trainer.LOG) for folder in (out, alone)]
            differ["losses"] = max(abs(float(a["loss"]) / float(b["loss"]) - 1) for a, b in zip(*rows, strict=True))
            print(json.dumps({"stage": stage, "way": way, "codes": codes, "rows": len(rows[0]), **differ}))
    for way, first, then in (("fsdp", 2, 1), ("ddp", 1, 2)):
        out = home / f"{way}-{first}-{then}"
        codes = []
        for count, stop in ((first, 1), (then, None)):
            work = lambda out=out, way=way, stop=stop: spread_run(out, way, "tuning", stop=stop)  # noqa: E731
            codes += together(count, work, home / f"{way}-{first}-{then}-{count}.met") if count > 1 else forked(work)
        differ = apart(out, home / "alone-tuning", "weights.pt")
        steps = [int(row["step"]) for row in progress.rows(out / trainer.LOG)]
        print(json.dumps({"way": way, "from": first, "to": then, "codes": codes, "steps": steps, "weights": differ}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    progress.plot = lambda logs, picture, *, title: picture.touch()  # drawing would take longer than all the rest
    assert Processes().first
    for name, told in {"kills": kills, "spread": spread}.items():
        (home := Path(sys.argv[1]) / name).mkdir()
        told(home)
