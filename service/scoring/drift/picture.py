"""The drift of a job as a picture: the reference and the input side by side, a panel for each statistic."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

COLUMNS, MAX_PANELS = 3, 24
PANEL_WIDTH, PANEL_HEIGHT, MARGIN, HEADER = 240, 130, 12, 44
# Above the bars of a panel: its name, and its index with the verdict.
TITLE = 30
MAX_CHARS = 36
INK_COLOR, BACKGROUND_COLOR = (40, 40, 40), (255, 255, 255)
REFERENCE_COLOR, INPUT_COLOR, LARGE_COLOR = (176, 176, 176), (61, 118, 184), (200, 60, 40)


def drift_picture(summary: Mapping[str, Any]) -> bytes:
    """A PNG of the statistics of a summary that has drift, those that drift most first."""
    report = summary["drift"]
    statistics = report["statistics"][:MAX_PANELS]
    rows = max(1, -(-len(statistics) // COLUMNS))
    picture = Image.new(
        "RGB", (COLUMNS * PANEL_WIDTH + MARGIN, HEADER + rows * PANEL_HEIGHT + MARGIN), BACKGROUND_COLOR
    )
    draw = ImageDraw.Draw(picture)
    hidden = len(report["statistics"]) - len(statistics)
    others = f", and {hidden} more statistics that drift less" if hidden else ""
    title = f"{summary['model']} {summary['version']}: drift of {summary['scored']:,} rows{others}"
    draw.text((MARGIN, 8), title, fill=INK_COLOR)
    draw.rectangle((MARGIN, 27, MARGIN + 8, 35), fill=REFERENCE_COLOR)
    draw.text((MARGIN + 13, 24), f"{report['reference']}, {report['reference_rows']:,} items", fill=INK_COLOR)
    middle = COLUMNS * PANEL_WIDTH - 200
    draw.rectangle((middle, 27, middle + 8, 35), fill=INPUT_COLOR)
    draw.text((middle + 13, 24), "this input, red if it drifts largely", fill=INK_COLOR)
    for i, statistic in enumerate(statistics):
        _draw_panel(draw, statistic, MARGIN + i % COLUMNS * PANEL_WIDTH, HEADER + i // COLUMNS * PANEL_HEIGHT)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_panel(draw: ImageDraw.ImageDraw, statistic: Mapping[str, Any], left: int, top: int) -> None:
    name, color = statistic["name"], LARGE_COLOR if statistic["verdict"] == "large" else INPUT_COLOR
    draw.text((left, top), name if len(name) <= MAX_CHARS else f"{name[: MAX_CHARS - 1]}…", fill=INK_COLOR)
    finding = f"PSI {statistic['psi']:.3f}, {statistic['verdict']}"
    draw.text((left, top + 13), finding, fill=color)
    width, floor = PANEL_WIDTH - MARGIN, top + PANEL_HEIGHT - MARGIN
    samples = _shares(statistic["reference"]), _shares(statistic["counts"])
    highest = max((share for sample in samples for share in sample), default=0) or 1
    step = width / len(samples[0])
    for side, (sample, fill) in enumerate(zip(samples, (REFERENCE_COLOR, color), strict=True)):
        for i, share in enumerate(sample):
            height = round((PANEL_HEIGHT - TITLE - MARGIN) * share / highest)
            start = left + (i + side / 2) * step
            if height:
                draw.rectangle((start, floor - height, max(start, start + step / 2 - 1), floor), fill=fill)
    draw.line((left, floor, left + width, floor), fill=INK_COLOR)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]
