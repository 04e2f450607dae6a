"""Pictures of a run as PNG; the same arguments give the same bytes."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

INK, PALE, BLUE, RED = "#23293a", "#c9cedb", "#2f6fde", "#d9483b"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#eef0f5",
    "legend.frameon": False,
}
DPI = 110


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}, facecolor="white")
    return file.getvalue()


def curves(name: str, points: Sequence[Mapping[str, float]], best_step: int | None) -> bytes:
    """Loss and, if evaluated, validation accuracy over the steps; a line marks `best_step`."""
    panels = ["accuracy"] if "validation_accuracy" in points[0] else []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * (1 + len(panels)), 3.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, 1 + len(panels)))
        steps = [point["step"] for point in points]
        _curve(axes[0], steps, points, {"loss": ("training", PALE), "validation_loss": ("validation", BLUE)})
        axes[0].set_title(f"{name}: loss", loc="left")
        for axis in axes[1:]:
            _curve(axis, steps, points, {"validation_accuracy": ("validation", BLUE)})
            axis.set_title("accuracy", loc="left")
        for axis in axes:
            if best_step is not None:
                axis.axvline(best_step, color=RED, linewidth=1, linestyle=":", label="kept")
            axis.legend()
        return _png(figure)


def _curve(axis: Axes, steps: list[float], points: Sequence[Mapping[str, float]], lines: dict[str, Any]) -> None:
    for key, (label, colour) in lines.items():
        if key in points[0]:
            axis.plot(steps, [point[key] for point in points], color=colour, linewidth=2, label=label)
    axis.grid(visible=True)
    axis.set_xlabel("step")


def confusion(
    name: str, targets: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: Sequence[str]
) -> bytes:
    """A confusion matrix: rows are targets, columns predictions, numbers are items and colours shares of the row."""
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (targets, predicted), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with mpl.rc_context(STYLE):
        size = 2.2 + 0.42 * len(labels)
        figure = Figure(figsize=(size + 0.4, size), layout="constrained")
        axis = figure.subplots()
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else INK
            axis.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=7.5)
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axis.set_yticks(range(len(labels)), labels)
        axis.set_xlabel("answer")
        axis.set_ylabel("truth")
        accuracy = (targets == predicted).mean()
        axis.set_title(f"{name}: {accuracy:.2%} of {len(targets):,} test items", loc="left")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        return _png(figure)


def gallery(items: Sequence[npt.NDArray[Any]], titles: Sequence[str]) -> bytes:
    """Images [height, width(, 3)], or series [channels, steps] as heat maps, eight per row."""
    columns = 8
    rows = max(1, -(-len(items) // columns))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(columns * 1.35, rows * 1.5 + 0.3), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, item, title in zip(axes, items, titles, strict=False):
            is_image = item.dtype == np.uint8
            axis.imshow(item, cmap="gray_r" if is_image else "viridis", aspect="equal" if is_image else "auto")
            axis.set_title(title, fontsize=6.5, fontweight="normal")
        if not items:
            axes[0].text(0, 0.5, "none", fontsize=12)
        return _png(figure)


def text_table(texts: Sequence[str], titles: Sequence[str], *, num_rows: int = 14, width: int = 110) -> bytes:
    """The first `num_rows` texts, each shortened to two lines, with their titles to the left."""
    with mpl.rc_context(STYLE):
        texts, titles = texts[:num_rows], titles[:num_rows]
        figure = Figure(figsize=(11, 0.5 * max(1, len(texts)) + 0.2))
        axis = figure.add_axes((0.01, 0, 0.98, 1))
        axis.axis("off")
        axis.set_xlim(0, 1)
        axis.set_ylim(max(1, len(texts)), 0)
        for row, (text, title) in enumerate(zip(texts, titles, strict=True)):
            lines = textwrap.wrap(textwrap.shorten(text, 2 * width - 10, placeholder=" …"), width)
            text_block = "\n".join(lines).replace("$", r"\$")
            axis.axhline(row, color="#eef0f5")
            axis.text(0, row + 0.5, title, va="center", color=RED, fontsize=8.5)
            axis.text(0.25, row + 0.5, text_block, va="center", fontsize=8)
        if not texts:
            axis.text(0, 0.5, "none", fontsize=12)
        return _png(figure)


def grid(images: Tensor, *, columns: int = 10, scale: int = 2, gap: int = 2) -> bytes:
    """Images, uint8 [items, height, width], as one inverted picture; each pixel is `scale` pixels wide."""
    num_items, height, width = images.shape
    rows = -(-num_items // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), 255, np.uint8)
    for i, image in enumerate(255 - images.numpy()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    file = io.BytesIO()
    Image.fromarray(canvas.repeat(scale, 0).repeat(scale, 1)).save(file, "PNG", optimize=True)
    return file.getvalue()
