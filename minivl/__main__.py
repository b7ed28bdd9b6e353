"""`python -m minivl COMMAND`: one table of commands, and what happens when one can't do its job.

A command is a module with `add_arguments(parser)` and `run(args)`. Only the module of the command that was asked for
is imported, so that --help answers at once. `run` returns an exit code, or None for 0. A fault that a user can mend
(a wrong argument, a missing file, a missing package) is raised as an exception by whoever finds it, and ends here as
one line and exit code 1; argparse answers a command line that it can't read with exit code 2; Ctrl-C gives 130.
"""

import argparse
import importlib
import io
import os
import sys

from .commands.faults import FAULTS, memory_told

COMMANDS = {
    "demo": ("minivl.demo", "a small trained model watches and answers; with --ladder, the ops it is built from"),
    "chat": ("minivl.commands.chat", "ask about pictures and videos, once or in a conversation"),
    "stream": ("minivl.commands.stream", "watch a video, a camera or pictures, and answer questions meanwhile"),
    "eval": ("minivl.commands.evaluate", "answer a file of questions and score the answers"),
    "fake-checkpoint": ("minivl.commands.fake_checkpoint", "write a checkpoint of the released form, random weights"),
    "verify": ("minivl.commands.verify", "check a checkpoint's files, layers and numbers; ends in a verdict"),
    "bench": ("minivl.bench", "measure the ops on this machine"),
    "train": ("minivl.commands.train", "train a stage on your own data, the tiny model, or the paper's claims"),
    "assignment": ("minivl.commands.assignment", "make, pack and grade the course's assignments"),
}

USER_FAULTS = (*FAULTS, ImportError)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line. `args.run` is the command's function, `args.command` its name."""
    parser = argparse.ArgumentParser(
        prog="python -m minivl", description="MiniVL: InfiniteVL's hybrid linear attention, small and readable."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        if name in argv[:1]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse(argv)
        with memory_told():
            code = args.run(args) or 0
        sys.stdout.flush()  # so that a closed pipe is met here, and not by the interpreter on its way out
        return code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except USER_FAULTS as fault:
        line = " ".join(str(fault).split()) or type(fault).__name__
        print(f"python -m minivl {' '.join(argv[:1])}: {line}", file=sys.stderr)
        return 1


def speak_utf8() -> None:
    """Files and pipes are UTF-8, which can write every answer; a terminal keeps its own, with ? for the rest."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


if __name__ == "__main__":
    speak_utf8()
    sys.exit(main())
