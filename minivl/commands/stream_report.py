"""The report of a stream: what was asked and answered, some frames, time and memory; as a page of html_page.py."""

from .html_page import ONE, THREE, TWO, drawing, figure, page, section, svg, table, text, write

__all__ = ["report", "write"]


def report(summary: dict, watching, settings: dict[str, object]) -> str:
    frames, times = summary["frames"], summary["frame_milliseconds"]
    counts = {
        "source": summary["source"],
        "ended": summary["ended"],
        "frames watched": f"{frames['watched']:,}",
        "skipped": f"{frames['skipped']:,}",
        "dropped": f"{frames['dropped']:,}",
        "late": f"{frames['late']:,}",
        "seen before": f"{frames['seen_before']:,}",
        "frames a second": summary["frames_per_second"],
        "a frame": f"{times['median']} ms (median), {times['worst']} ms (worst)",
        "the stream": f"{summary['frames_seen']:,} frames, {summary['stream_seconds']:,.1f} s",
        "tokens seen": f"{summary['tokens_seen']:,}",
        "memory": f"{summary['memory_bytes']:,} bytes",
        "saved": summary["saved"] or "no",
    }
    if summary["peak_device_bytes"] is not None:
        counts["peak on the GPU"] = f"{summary['peak_device_bytes']:,} bytes"
    figures = watching.figures
    parts = [
        "<h1>A stream</h1>",
        table(counts),
        *section("Questions", [asked_and_answered(asked) for asked in watching.asked]),
        *section("Not asked", [f"<p>{text(question)}</p>" for question in summary["unasked"]]),
        *section("Frames", [figure(x, f"{seconds:,.1f} s") for _, (seconds, x) in figures.thumbnails.kept]),
        *section("Time and memory", [plots(figures.latency.kept)] if figures.latency.kept else []),
        *section("Skipped", [f"<p class='fault'>{text(fault)}</p>" for fault in figures.faults]),
        *section("Settings", [table(settings)]),
    ]
    return page(summary["source"], parts)


def asked_and_answered(asked) -> str:
    when = f"{asked.seconds:,.1f} s, {asked.frames:,} frames"
    seen = figure(asked.thumbnail, when) if asked.thumbnail else f"<p>{when}</p>"
    answer = f"<p>{text(asked.answer)}{' …' if asked.interrupted else ''}</p>"
    fault = f"<p class='fault'>{text(asked.fault)}</p>" if asked.fault else ""
    return f"<div class='asked'>{seen}<div><p class='question'>{text(asked.question)}</p>{answer}{fault}</div></div>"


def plots(kept: list[tuple[int, tuple[float, int, int | None]]]) -> str:
    """Milliseconds a frame and bytes of memory, both against frames, as inline SVG."""
    places = [place + 1 for place, _ in kept]
    with drawing(11, 3.6) as drawn:
        latency, memory = drawn.subplots(1, 2)
        frame_times(latency, places, [1e3 * seconds for _, (seconds, _, _) in kept])
        memory.plot(places, [held / 1e6 for _, (_, held, _) in kept], color=ONE, label="the stream's memory")
        if kept[0][1][2] is not None:
            on_gpu = [allocated / 1e6 for _, (_, _, allocated) in kept]
            memory.plot(places, on_gpu, color=TWO, label="all on the GPU, weights included")
        memory.set(title="Memory", xlabel="frames of this run", ylabel="MB", ylim=(0, None))
        memory.legend(loc="lower right")
    return svg(drawn, "time-and-memory", "Time of a frame, and memory, both against the frames of this run")


def frame_times(axes, places: list[int], took: list[float]) -> None:
    """Milliseconds of each frame, as points."""
    from matplotlib.ticker import LogLocator

    axes.semilogy(places, took, ".", color=THREE)  # the first may take a thousand times as long as the others
    axes.set(title="Time of a frame", xlabel="frames of this run", ylabel="ms", ylim=(min(took) / 2, 2 * max(took)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
