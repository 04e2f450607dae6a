"""The picture of a parity: each batch's difference against what is allowed, both float32 results against float64."""

from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.parity import Parity, Point
from service.manifest import Manifest

INK, GRID, REAL, RANDOM, LIMIT = "#22313f", "#dfe4e8", "#1b7f79", "#e0a458", "#c8553d"
NOTHING = 1e-6  # of the tolerance; where exact agreement is drawn on a logarithmic axis
STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def parity_png(manifest: Manifest, parity: Parity) -> bytes:
    """PNG bytes, the same for the same numbers."""
    outputs = [spec.name for spec in manifest.outputs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.9 + 0.34 * len(outputs)), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _share(left, outputs, parity)
        _referee(right, parity)
        figure.suptitle(
            f"{manifest.name}: ONNX Runtime against PyTorch", fontsize=11, fontweight="bold", x=0.01, ha="left"
        )
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _share(axes: Axes, outputs: list[str], parity: Parity) -> None:
    for row, output in enumerate(outputs):
        points = [point for point in parity.points if point.output == output]
        for i, point in enumerate(points):
            height = row + 0.5 * (i / max(len(points) - 1, 1) - 0.5)
            axes.plot(max(point.used, NOTHING), height, ".", ms=6, alpha=0.75, color=_colour(point))
    axes.axvline(1, color=LIMIT, lw=1.5)
    axes.annotate(
        "refused", (1, len(outputs) - 0.5), xytext=(3, 0), textcoords="offset points", color=LIMIT, fontsize=8
    )
    axes.set(
        xscale="log",
        xlim=(NOTHING / 2, 6),
        ylim=(len(outputs) - 0.4, -0.6),
        yticks=range(len(outputs)),
        yticklabels=outputs,
        xlabel="share of the tolerance that a batch's worst element uses",
    )
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    for colour, name in ((REAL, "test items"), (RANDOM, "random items")):
        axes.plot([], [], ".", color=colour, label=name)
    axes.legend(loc="lower left", frameon=False, fontsize=8)


def _referee(axes: Axes, parity: Parity) -> None:
    points = [point for point in parity.points if point.torch_off > 0 and point.onnx_off > 0]
    for point in points:
        axes.plot(point.torch_off, point.onnx_off, ".", ms=6, alpha=0.75, color=_colour(point))
    bounds = [value for point in points for value in (point.torch_off, point.onnx_off)] or [1e-8, 1e-6]
    ends = (min(bounds) / 2, max(bounds) * 2)
    axes.plot(ends, ends, color=INK, lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="PyTorch to float64", ylabel="ONNX to float64")
    axes.grid(color=GRID)
    axes.set_axisbelow(True)


def _colour(point: Point) -> str:
    return REAL if point.case.endswith("test items") else RANDOM
