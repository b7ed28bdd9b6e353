"""`python -m minivl bench drift`: does the state of a stream drift away from the exact one over a million tokens?

The same q, k, v and gates go several ways, 256 tokens at a time as frames come. One is the recurrence in float64,
token by token. The others are the chunked form with its state in float32: with float32 products; on a GPU also with
the kernels' bfloat16 products, as a model runs it; and, for comparison, with the state rounded to bfloat16 after every
frame, as the released code keeps it. As more and more tokens pass, the states and the read-outs are compared.

    error = |S − S_exact| / |S_exact|, over all heads of a regime; likewise of a frame's 256 read-outs
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from ..ops.delta_rule import unit
from ..ops.gated_delta_rule import gated_delta_rule, recurrent
from . import outputs
from .drift_regimes import FRAME, REGIMES, Source, own
from .drift_report import plot, report
from .ladder import relative_error
from .measure import machine

BAR = 1e-3  # what float32 is held to
POINTS = 32  # how often states are compared

Way = Callable[..., tuple[Tensor, Tensor]]


def tokens(text: str) -> int:
    if int(text) < FRAME:
        raise ValueError
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=tokens, metavar="T", help="default: 1,048,576; without a GPU 20,000")
    outputs.add_arguments(parser, picture="error against tokens into FILE.png")


def run(args: argparse.Namespace) -> int:
    outputs.check(args, "drift")
    cuda = torch.cuda.is_available()
    T = args.tokens or (1 << 20 if cuda else 20_000)
    K, V = (128, 256) if cuda else (16, 32)
    found = {"on": {**machine(), "gpu": torch.cuda.get_device_name() if cuda else None}, "K": K, "V": V}
    start = time.perf_counter()
    found |= measure(T // FRAME, K=K, V=V, device="cuda" if cuda else "cpu")
    found["seconds"] = time.perf_counter() - start
    outputs.leave(args, "drift", found, report=report, plot=plot)
    return 0 if found["within"] else 1


class Exact:
    """The recurrence in float64, a frame at a time; on a GPU its 256 steps are one CUDA graph. `frame` shows shapes."""

    def __init__(self, frame: dict[str, Tensor], V: int):
        self.frame = {name: x.clone() for name, x in frame.items()}
        k = frame["k"]
        self.state = torch.zeros(*k.shape[2:], V, dtype=torch.float64, device=k.device)
        self.graph = None
        if k.is_cuda:
            self.steps()  # what a first call sets up must not be captured
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.steps()
            self.state.zero_()

    def steps(self) -> None:
        """S ← α S;  S ← S + k (β (v − Sᵀ k))ᵀ, for one token after the other; state [H, K, V]."""
        k, v, log_decay, beta = (self.frame[name][0].double() for name in ("k", "v", "log_decay", "beta"))
        k, alpha, beta = unit(k)[..., None], log_decay.exp()[..., None, None], beta[..., None]
        wanted = beta * v
        for t in range(FRAME):
            self.state.mul_(alpha[t])
            found = torch.bmm(k[t].mT, self.state)[:, 0]
            delta = torch.addcmul(wanted[t], beta[t], found, value=-1)
            self.state.baddbmm_(k[t], delta[:, None])

    def absorb(self, frame: dict[str, Tensor]) -> None:
        for name, x in frame.items():
            self.frame[name].copy_(x)
        if self.graph:
            self.graph.replay()
        else:
            self.steps()


def ways(device: str) -> dict[str, Way]:
    """The chunked form as it would run here, by its arithmetic."""
    backend = "triton" if device == "cuda" else "chunked"

    def as_given(q: Tensor, k: Tensor, v: Tensor, **arguments):
        return gated_delta_rule(q, k, v, backend=backend, normalize_qk=True, **arguments)

    def float32(q: Tensor, k: Tensor, v: Tensor, **arguments):
        return as_given(q.float(), k.float(), v.float(), **arguments)

    def rounded(*args, **arguments):
        out, state = float32(*args, **arguments)
        return out, state.bfloat16().float()

    found = {"float32": float32, "bfloat16 products": as_given, "bfloat16 state": rounded}
    if device != "cuda":
        del found["bfloat16 products"]  # of bfloat16 inputs PyTorch's form makes float32, too
    return found


@torch.no_grad()
def measure(frames: int, *, K: int, V: int, device: str) -> dict:
    """Errors of each way and regime after some of the frames."""
    source = Source(K, V, device)
    exact, forms = Exact(Source(K, V, device).frame(), V), ways(device)
    states = {way: torch.zeros(1, source.heads, K, V, device=device) for way in forms}
    rows, compared = [], moments(frames)
    for number in tqdm(range(1, frames + 1), unit="frame", delay=2, leave=False, disable=None, file=sys.stderr):
        frame, before = source.frame(), exact.state.clone() if number in compared else None
        exact.absorb(frame)
        outs = {}
        for way, form in forms.items():
            q, k, v, log_decay, beta = frame.values()
            outs[way], states[way] = form(q, k, v, log_decay=log_decay, beta=beta, state=states[way])
        if before is None:
            continue
        out = readouts(frame, before, exact.state)
        for way in forms:
            for heads, regime in ((own(regime), regime) for regime in REGIMES):
                of_state = relative_error(states[way][0, heads], exact.state[heads])
                of_out = relative_error(outs[way][0, :, heads], out[:, heads])
                rows.append({"tokens": number * FRAME, "way": way, "regime": regime, "state": of_state, "out": of_out})
    summary = summarised(rows)
    within = all(row["largest_state"] <= BAR for row in summary if row["way"] == "float32")  # NaN is not
    return {"tokens": frames * FRAME, "bar": BAR, "within": within, "summary": summary, "rows": rows}


def moments(frames: int) -> set[int]:
    """After which frames states are compared: evenly spaced ones, the last among them, and the powers of two."""
    even = {max(1, round(frames * i / POINTS)) for i in range(1, POINTS + 1)}
    return even | {1 << i for i in range(frames.bit_length())}


def readouts(frame: dict[str, Tensor], before: Tensor, after: Tensor) -> Tensor:
    """The frame's exact read-outs, by the oracle of all tests, which must also arrive at the same state."""
    out, state = recurrent(**{name: x.double() for name, x in frame.items()}, state=before[None], normalize_qk=True)
    if not relative_error(after, state[0]) < 1e-10:
        raise RuntimeError("this measurement's float64 recurrence is not that of minivl/ops/gated_delta_rule.py")
    return out[0]


def summarised(rows: list[dict]) -> list[dict]:
    """For each way and regime: the errors after the first frame and after the last, and the largest."""
    found = []
    for way, regime in dict.fromkeys((row["way"], row["regime"]) for row in rows):
        mine = [row for row in rows if (row["way"], row["regime"]) == (way, regime)]
        summary = {"way": way, "regime": regime}
        for what in ("state", "out"):
            errors = [row[what] for row in mine]
            worst = max(errors, key=lambda error: (error != error, error))  # NaN is the worst of all
            summary |= {f"first_{what}": errors[0], f"last_{what}": errors[-1], f"largest_{what}": worst}
        found.append(summary)
    return found
