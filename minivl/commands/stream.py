"""`python -m minivl stream`: watch a video, a camera, a folder or drawn frames, and answer questions meanwhile.

Answers go to stdout, all else to stderr. The source is opened before the weights are read, so that what is wrong with
it is told at once. Ctrl-C ends the stream after the frame that is being absorbed: it is saved and summed up as usual,
and the exit code is 130.
"""

import argparse
import json
import math
import re
from pathlib import Path

from ..bench.files import make_ready
from ..checkpoint import checkpoint_folder
from ..fetch import shown
from ..layers.int8 import nbytes
from ..processor import load_processor
from ..stream import Stream
from . import stream_report
from .camera import Camera
from .faults import memory_told
from .options import add_model, add_sampling, positive, read_model, sampling, whole
from .sources import Film, Folder, Synthetic
from .stream_figures import summary
from .stream_terminal import Live, Typed
from .watching import END, Watching

SYNTHETIC = 100  # frames
SIDE = 448  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, metavar="FILE", help="a video file")
    source.add_argument("--camera", metavar="NUMBER", help="a camera's number, or its name")
    source.add_argument("--frames", type=Path, metavar="DIR", help="a folder of pictures, in the order of their names")
    source.add_argument(
        "--synthetic",
        type=whole,
        nargs="?",
        const=SYNTHETIC,
        metavar="N",
        help=f"N frames drawn on the spot (default: {SYNTHETIC})",
    )
    parser.add_argument("--fps", type=positive, default=1.0, metavar="X", help="frames a second (default: 1)")
    parser.add_argument("--size", type=whole, metavar="N", help=f"frames become squares of this side (default: {SIDE})")
    parser.add_argument("--seconds", type=positive, metavar="X", help="watch so many seconds of the source")
    parser.add_argument("--max-frames", type=whole, metavar="N", help="watch so many frames")
    parser.add_argument(
        "--ask",
        type=timed,
        action="append",
        default=[],
        metavar="TIME:QUESTION",
        help="ask at this second of the stream, or at its `end`; may be given several times, "
        "and questions can be typed at any time",
    )
    parser.add_argument("--realtime", action="store_true", help="show a recorded source at the pace of its own times")
    parser.add_argument("--drop-late", action="store_true", help="drop frames when the next one is already due")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the stream in this file when it ends")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with a stream that was kept")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="frames, answers and plots in one file")
    add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="print nothing but a summary, as one JSON object")


def run(args: argparse.Namespace) -> int:
    options = sampling(args)
    if args.drop_late and not args.realtime and args.camera is None:
        raise ValueError("--drop-late needs --realtime or a --camera: without them a source waits, and is never late")
    processor = load_processor(checkpoint_folder(args.model))
    if args.size is not None and args.size % processor.settings.cell:
        raise ValueError(f"--size is {args.size}; it should be a multiple of {processor.settings.cell}")
    for path, suffixes in ((args.save, ()), (args.report, (".html", ".htm"))):
        if path is not None:
            make_ready(path, *suffixes)
    if args.resume is not None and not args.resume.is_file():
        raise FileNotFoundError(f"--resume is {args.resume}, which is not a file; it should be a saved stream")
    source, typed, live = opened(args), Typed(), Live()
    source.check()
    model, load = read_model(args)
    watching = Watching(
        began(args, model, processor),
        source,
        args.ask,
        fps=args.fps,
        options=options,
        seconds=args.seconds,
        max_frames=args.max_frames,
        realtime=args.realtime,
        drop_late=args.drop_late,
        quiet=args.json,
        pictures=args.report is not None,
        live=live,
        typed=typed,
    )
    if typed.at_terminal:
        live.note("Press Enter to type a question, and Ctrl-C to end.")
    try:
        watching.run()
    except BaseException:  # whatever ends it, what was watched is kept if that is whole
        if args.save is not None:
            try:
                watching.stream.save(args.save)
            except ValueError as fault:
                live.note(f"not kept in {args.save}: {fault}")
        raise
    return ended(args, watching, load)


def opened(args: argparse.Namespace) -> Film | Folder | Synthetic | Camera:
    if args.video is not None:
        return Film(args.video)
    if args.frames is not None:
        return Folder(args.frames)
    if args.camera is not None:
        return Camera(args.camera)
    return Synthetic(args.synthetic, size=args.size or SIDE, seed=args.seed or 0)


def began(args: argparse.Namespace, model, processor) -> Stream:
    """A new stream, or the one that was kept."""
    try:
        with memory_told():
            if args.resume is None:
                return Stream(model, processor, fps=args.fps, size=args.size or SIDE)
            stream = Stream.resume(args.resume, model, processor)
    except MemoryError:
        raise ValueError(
            f"{model.device} has no room for a stream's memory beside {nbytes(model) / 1e9:.2f} GB of weights; "
            f"free some of it, or use a narrower --dtype or --int8"
        ) from None
    if args.size is not None and stream.size != (args.size, args.size):
        height, width = stream.size
        raise ValueError(f"--size is {args.size}, and {args.resume} is a stream of frames of {width}×{height}")
    for seconds, _ in args.ask:
        if seconds < stream.seconds:
            raise ValueError(f"--ask {seconds:g}: is too early; {args.resume} goes on at {stream.seconds:g} seconds")
    return stream


def ended(args: argparse.Namespace, watching: Watching, load: float) -> int:
    """Save, report, and tell how it was."""
    stream, figures = watching.stream, watching.figures
    if args.save is not None:
        stream.save(args.save)
    told = summary(watching, load=load, saved=None if args.save is None else shown(args.save))
    if args.report is not None:
        settings = {
            f"--{name.replace('_', '-')}": show(value)
            for name, value in vars(args).items()
            if name not in ("run", "command") and value not in (None, [])
        }
        stream_report.write(args.report, stream_report.report(told, watching, settings))
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        for line in lines(told, args):
            watching.live.note(line)
    if watching.stop.pressed:
        return 130
    if not figures.watched and not figures.seen_before:
        raise ValueError(f"{watching.source.name}: not one frame could be watched")
    return int(any(asked.fault for asked in watching.asked))


def lines(told: dict, args: argparse.Namespace) -> list[str]:
    frames = told["frames"]
    counts = [f"{number:,} {name.replace('_', ' ')}" for name, number in frames.items() if number or name == "watched"]
    if frames["watched"]:
        counts += [f"{told['frames_per_second']} a second", f"{told['frame_milliseconds']['median']} ms each"]
    out = ["stopped"] if told["interrupted"] else []
    out.append(f"frames: {', '.join(counts)}")
    out.append(f"{told['tokens_seen']:,} tokens seen, {told['memory_bytes']:,} bytes of memory")
    out += [f"not asked, as its time had not come: {question}" for question in told["unasked"]]
    out += [f"kept in {args.save}"] if args.save else []
    out += [f"report: {args.report}"] if args.report else []
    return out


def timed(words: str) -> tuple[float, str]:
    """'150:What is it?' or 'end:What was it?'"""
    found = re.fullmatch(r"\s*([^:]*?)\s*:\s*(.*\S)\s*", words, re.DOTALL)
    if found is None:
        raise argparse.ArgumentTypeError(f"{words!r} should be a time, a colon and a question, as in '150:What is it?'")
    time, question = found[1], found[2].encode(errors="replace").decode()  # the shell may hand over half characters
    try:
        seconds = END if time == "end" else float(time)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0 or (seconds == END and time != "end"):
        raise argparse.ArgumentTypeError(
            f"{time!r} should be a number of seconds, or the word end, before the question"
        )
    return seconds, question


def show(value: object) -> str:
    """An option's value, for people."""
    if isinstance(value, list):
        return "; ".join(f"{'end' if at == END else f'{at:g}'}:{question}" for at, question in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
