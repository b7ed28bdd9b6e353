"""The demo's three plots: memory against frames, time against frames, and right or wrong against distance."""

import math
from collections import Counter

from ..commands.html_page import INK, ONE, TWO, drawing, svg
from ..commands.stream_report import frame_times
from ..config import DecoderConfig
from .results import Watched, full_attention_nbytes

SIZE = (5, 3.4)  # inches: as wide as a phone, so that letters are as large there as on the page


def memory(watched: Watched, config: DecoderConfig) -> str:
    frames = [x.frames for x in watched.readings]
    full = [full_attention_nbytes(config, x.tokens) / 1e6 for x in watched.readings]
    with drawing(*SIZE) as drawn:
        axes = drawn.subplots()
        axes.plot(frames, full, color=TWO, linestyle="--", marker="s", markersize=4, label="full attention, computed")
        axes.plot(
            frames,
            [x.nbytes / 1e6 for x in watched.readings],
            color=ONE,
            marker="o",
            markersize=4,
            label="this model, measured",
        )
        axes.set(title="Memory of the stream", xlabel="frames seen", ylabel="MB", xlim=(0, None), ylim=(0, None))
        axes.legend(loc="upper left")
    words = f"Memory against frames: this model stays at {watched.readings[-1].nbytes:,} bytes, full attention grows"
    return svg(drawn, "memory", words)


def times(watched: Watched) -> str:
    kept = watched.times.kept
    with drawing(*SIZE) as drawn:
        frame_times(drawn.subplots(), [place + 1 for place, _ in kept], [1e3 * seconds for _, seconds in kept])
    return svg(drawn, "times", "Milliseconds of each frame against frames")


def distances(watched: Watched) -> str:
    """A mark for each question; those of one distance and outcome stand one above the other."""
    marks = [(watched.stream.windows(answer.of.asked), answer.right) for answer in watched.answers]
    never = math.ceil(max(math.log2(1 + windows) for windows, _ in marks if windows is not None)) + 1
    taken: Counter = Counter()
    with drawing(*SIZE) as drawn:
        axes = drawn.subplots()
        for windows, right in marks:
            across = never if windows is None else math.log2(1 + windows)
            spot = round(across, 1), right
            look = {"color": ONE, "marker": "o"} if right else {"color": TWO, "marker": "x"}
            axes.plot(across, right + 0.1 * taken[spot] - 0.1, markersize=8, **look)
            taken[spot] += 1
        axes.axvline(1, color=INK, linestyle=":", linewidth=1)
        axes.annotate("in the\nwindow", (1, 0.5), xytext=(-4, 0), textcoords="offset points", ha="right", va="center")
        axes.set(xlabel="windows since the fact was shown", xlim=(-0.5, never + 0.5), ylim=(-0.4, 1.4))
        ticks = [x for x in (0, *(1 << power for power in range(never))) if math.log2(1 + x) < never - 0.4]
        axes.set_xticks([*(math.log2(1 + x) for x in ticks), never], [*map(str, ticks), "never\nshown"])
        axes.set_yticks([0, 1], ["wrong", "right"])
    return svg(drawn, "distances", "Right and wrong answers against how long ago the fact was shown")
