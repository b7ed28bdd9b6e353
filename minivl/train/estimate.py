"""`python -m minivl train estimate`: what each stage of the 4B model's training needs in memory and time, computed.

Nothing is trained and no 4B training step was ever timed. Parameters are counted on a model without numbers; bytes and
operations are sums over its layers as this trainer holds and runs them; hours are operations by the rate at which an
H200 was measured to read a prompt. Training is no faster than reading, so that the hours are the fewest there can be.
"""

import argparse
import json
from pathlib import Path

from ..bench import page
from ..commands.options import whole
from ..config import Config
from . import freezing
from .estimate_memory import activations, empty, held, longest, numbers, sent, size
from .estimate_work import STAGES, as_teacher, decoder, work

MARKS = "estimate"  # between which the page holds the tables
SPEEDS = Path(__file__).resolve().parents[2] / "docs" / "streaming-speed.json"
READ = 8192  # tokens of the prompt whose time gives the rate
TOLD = {"layers": "1a layers", "logits": "1b logits", "tuning": "2 tuning", "long": "3 long"}
TOKENS = {"layers": 8192, "logits": 8192, "tuning": 8192, "long": 32_768}  # in a row; the last is the paper's
CARDS = (80, 141)  # GB
USABLE = 0.9  # of a card: the rest is CUDA's own, and what lies between tensors
LONG_ROWS = 200_000  # the paper's third stage


def listed(text: str) -> list[int]:
    return [whole(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=listed, default=[1, 8, 64], metavar="N,N,…", help="default: 1,8,64")
    parser.add_argument("--tokens", type=whole, metavar="N", help="of a row, in all stages (default: 8192; long 32768)")
    parser.add_argument("--rank", type=whole, default=16, metavar="N", help="of the adapters (default: 16)")
    parser.add_argument(
        "--pictures",
        type=float,
        default=0.5,
        metavar="X",
        help="share of the tokens that are cells of pictures (default: 0.5, an assumption)",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"write the tables there, between {MARKS}'s marks")


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.pictures <= 1:
        raise ValueError(f"--pictures is {args.pictures}; it should be a share from 0 to 1")
    if args.page:
        page.check(args.page, MARKS)
    tokens = TOKENS if args.tokens is None else dict.fromkeys(STAGES, args.tokens)
    text = report(gpus=args.gpus, tokens=tokens, rank=args.rank, pictures=args.pictures)
    print(text)
    if args.page:
        page.fill(args.page, MARKS, text)


def rate() -> tuple[float, str, float]:
    """Operations a second at which a prompt was read, on what, and in how many milliseconds."""
    found = json.loads(SPEEDS.read_text(encoding="utf-8"))
    (read,) = (row for row in found["readings"] if row["context"] == READ)
    return decoder(Config(), READ) * READ / (read["prompt_ms"] / 1000), found["on"]["gpu"], read["prompt_ms"]


def report(*, gpus: list[int], tokens: dict[str, int], rank: int, pictures: float) -> str:
    config = Config()
    parts = [parameters(config, rank), memory(config, gpus, tokens, rank), times(config, gpus, tokens, rank, pictures)]
    return "\n\n".join(parts)


def parameters(config: Config, rank: int) -> str:
    """Counted, on models without numbers."""
    student, adapted, taught = empty(config), empty(config, rank), empty(as_teacher(config))
    counts = {
        name: {count.part: count.numbers for count in freezing.counted(model)}
        for name, model in {"student": student, "teacher": taught}.items()
    }
    counts["student"] |= {"adapters": size(adapted) - size(student)}
    lines = [f"{'counted: numbers in':24}{'student':>15}{'teacher':>15}   learns in"]
    for part in freezing.PARTS:
        learns = ", ".join(TOLD[stage] for stage in STAGES if part in freezing.LEARNS[stage])
        lines.append(
            f"{part:24}{counts['student'][part]:15,}{told(counts['teacher'].get(part)):>15}   {learns}".rstrip()
        )
    return "\n".join([*lines, f"{'all but adapters':24}{size(student):15,}{size(taught):15,}"])


def told(number: int | None) -> str:
    return f"{number:,}" if number else "–"


def memory(config: Config, gpus: list[int], tokens: dict[str, int], rank: int) -> str:
    """GB on each GPU, and the longest row that a card takes."""
    lines = []
    for stage in STAGES:
        for way, count in ways(gpus):
            own = held(stage, way, count, config, rank)
            always, row = sum(own.values()), activations(stage, way, config, tokens[stage])
            cells = own | {"a row": row, "in all": always + row, "sent": sent(stage, way, count, config, rank)}
            if not lines:
                cards = "".join(f"{f'in {card} GB':>11}" for card in CARDS)
                lines.append(f"{'computed: GB on a GPU':22}{''.join(f'{name:>{wide(name)}}' for name in cells)}{cards}")
            fit = (longest(stage, way, config, USABLE * card * 1e9 - always) for card in CARDS)
            name = f"{TOLD[stage]}, {'one GPU' if count == 1 else 'DDP' if way == 'ddp' else f'FSDP2 on {count}'}"
            figures = "".join(f"{cell / 1e9:{wide(name)}.1f}" for name, cell in cells.items())
            lines.append(f"{name:22}{figures}{''.join(f'{told(most):>11}' for most in fit)}")
    rows = ", ".join(f"{TOLD[stage]} {count:,}" for stage, count in tokens.items())
    lines.append(f"a row: one a pass, --recompute, of so many tokens: {rows}")
    lines.append("sent: by each GPU, with DDP in a step, with FSDP2 in a pass")
    lines.append(f"in {CARDS[0]} GB: tokens of the longest row that fits when {USABLE:.0%} of such a card are used")
    return "\n".join(lines)


def wide(name: str) -> int:
    return max(len(name), 5) + 2


def ways(gpus: list[int]) -> list[tuple[str, int]]:
    """One GPU needs no way; with DDP several hold the same, however many there are."""
    several = [count for count in gpus if count > 1]
    return [("ddp", 1)] * (1 in gpus) + [("ddp", min(several))] * bool(several) + [("fsdp", count) for count in several]


def times(config: Config, gpus: list[int], tokens: dict[str, int], rank: int, pictures: float) -> str:
    """Operations a token, the hours of a billion of them, and those of the paper's long rows."""
    a_second, gpu, ms = rate()
    adapters = numbers("long", config, rank).learns
    columns = "".join(f"{f'{count} GPUs' if count > 1 else '1 GPU':>10}" for count in gpus)
    lines = [
        f"measured: {gpu}, a prompt of {READ:,} tokens in {ms:.1f} ms: {a_second / 1e12:.0f} TFLOP/s",
        f"{'computed: GFLOP':22}{'a token':>10}{'a cell':>10}   hours for a billion tokens on{columns}",
    ]
    for stage in STAGES:
        token, cell = work(stage, config, tokens[stage], adapters=adapters if stage == "long" else 0)
        hours = 1e9 * (token + pictures * cell) / a_second / 3600
        shared = "".join(f"{hours / count:10.2f}" for count in gpus)
        lines.append(f"{TOLD[stage]:22}{token / 1e9:10.1f}{cell / 1e9:10.1f}{'':32}{shared}")
    most = LONG_ROWS * tokens["long"] / 1e9
    shared = "".join(f"{most * hours / count:10.2f}" for count in gpus)
    lines.append(f"{TOLD['long']}, {LONG_ROWS:,} rows of {tokens['long']:,}: {most:.2f} billion".ljust(74) + shared)
    lines.append(f"{pictures:.0%} of the tokens are cells of pictures")
    return "\n".join(lines)
