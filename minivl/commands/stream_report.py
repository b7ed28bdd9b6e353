"""The report of a stream: one HTML file that needs nothing beside itself and runs no scripts.

Whatever was asked, answered or named is text in it, also where it looks like HTML.
"""

import base64
import html
import io
from pathlib import Path

from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.2rem 1.5rem 0.2rem 0; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: normal; color: #666; white-space: nowrap; }
figure { display: inline-block; margin: 0 0.6rem 0.6rem 0; }
figcaption { color: #666; font-size: 0.85rem; }
img { display: block; max-width: 240px; }
svg { max-width: 100%; height: auto; }
.asked { display: flex; gap: 1.2rem; margin-bottom: 1.5rem; align-items: flex-start; }
.asked > div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.asked p { margin: 0 0 0.5rem; white-space: pre-wrap; }
.asked figure { flex: none; width: 240px; }
.question { font-weight: 600; }
.fault { color: #b00; }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<meta name='viewport' content='width=device-width'>"
        f"<title>{text(summary['source'])}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n"
        "</body></html>\n"
    )


def write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8", errors="replace")


def text(words: object) -> str:
    return html.escape(str(words))


def section(title: str, parts: list[str]) -> list[str]:
    return [f"<h2>{title}</h2>", *parts] if parts else []


def table(rows: dict[str, object]) -> str:
    cells = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def figure(picture: Image.Image, caption: str) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<figure><img alt='' src='data:image/jpeg;base64,{data}'><figcaption>{text(caption)}</figcaption></figure>"


def asked_and_answered(asked) -> str:
    when = f"{asked.seconds:,.1f} s, {asked.frames:,} frames"
    seen = figure(asked.thumbnail, when) if asked.thumbnail else f"<p>{when}</p>"
    answer = f"<p>{text(asked.answer)}{' …' if asked.interrupted else ''}</p>"
    fault = f"<p class='fault'>{text(asked.fault)}</p>" if asked.fault else ""
    return f"<div class='asked'>{seen}<div><p class='question'>{text(asked.question)}</p>{answer}{fault}</div></div>"


def plots(kept: list[tuple[int, tuple[float, int, int | None]]]) -> str:
    """Milliseconds a frame and bytes of memory, both against frames, as inline SVG."""
    from matplotlib.figure import Figure  # takes a second to import
    from matplotlib.ticker import LogLocator

    places = [place + 1 for place, _ in kept]
    drawing = Figure(figsize=(11, 3.6), layout="constrained")
    latency, memory = drawing.subplots(1, 2)
    took = [1e3 * seconds for _, (seconds, _, _) in kept]
    latency.semilogy(places, took, ".", color="#0072B2")  # the first may take a thousand times as long as the others
    latency.set(title="Time of a frame", xlabel="frames of this run", ylabel="ms", ylim=(min(took) / 2, 2 * max(took)))
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.minorticks_off()
    memory.plot(places, [held / 1e6 for _, (_, held, _) in kept], color="#009E73", label="the stream's memory")
    if kept[0][1][2] is not None:
        on_gpu = [allocated / 1e6 for _, (_, _, allocated) in kept]
        memory.plot(places, on_gpu, color="#D55E00", label="all on the GPU, weights included")
    memory.set(title="Memory", xlabel="frames of this run", ylabel="MB", ylim=(0, None))
    memory.legend(loc="lower right")
    file = io.StringIO()
    drawing.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :]  # without the head of a file of its own
