"""The parity plot: each batch's difference as a share of its tolerance, and both float32 errors against float64.

The bundle's hash covers the plot, so a change of the plot changes every version.
"""

from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.gates.parity import Measurement, Parity
from service.manifest import Manifest

INK, GRID, REAL, RANDOM, LIMIT = "#22313f", "#dfe4e8", "#1b7f79", "#e0a458", "#c8553d"
# The axis is logarithmic, so exact agreement is drawn at this share of the tolerance.
MIN_SHARE = 1e-6
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


def parity_png(manifest: Manifest, parity: Parity, *, has_float64: bool = True) -> bytes:
    """The plot as PNG. The same measurements give the same bytes."""
    outputs = [spec.name for spec in manifest.outputs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.9 + 0.34 * len(outputs)), dpi=110, layout="constrained")
        reference = manifest.provenance.reference
        if has_float64:
            left, right = figure.subplots(1, 2, width_ratios=(3, 2))
            _plot_float64_errors(right, parity, reference)
        else:
            left = figure.subplots()
        _plot_tolerance_shares(left, outputs, parity)
        figure.suptitle(
            f"{manifest.name}: ONNX Runtime against {reference}", fontsize=11, fontweight="bold", x=0.01, ha="left"
        )
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_tolerance_shares(axes: Axes, outputs: list[str], parity: Parity) -> None:
    for row, output in enumerate(outputs):
        measurements = parity.of_output(output)
        for i, measurement in enumerate(measurements):
            height = row + 0.5 * (i / max(len(measurements) - 1, 1) - 0.5)
            axes.plot(
                max(measurement.tolerance_share, MIN_SHARE), height, ".", ms=6, alpha=0.75, color=_colour(measurement)
            )
    axes.axvline(1, color=LIMIT, lw=1.5)
    axes.annotate(
        "refused", (1, len(outputs) - 0.5), xytext=(3, 0), textcoords="offset points", color=LIMIT, fontsize=8
    )
    axes.set(
        xscale="log",
        xlim=(MIN_SHARE / 2, 6),
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


def _plot_float64_errors(axes: Axes, parity: Parity, reference: str) -> None:
    errors = []
    for measurement in parity.measurements:
        if measurement.torch_error > 0 and measurement.onnx_error > 0:
            errors += [measurement.torch_error, measurement.onnx_error]
            axes.plot(*errors[-2:], ".", ms=6, alpha=0.75, color=_colour(measurement))
    limits = (min(errors, default=1e-8) / 2, max(errors, default=1e-6) * 2)
    axes.plot(limits, limits, color=INK, lw=0.8, ls=":")
    axes.set(
        xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel=f"{reference} to float64", ylabel="ONNX to float64"
    )
    axes.grid(color=GRID)
    axes.set_axisbelow(True)


def _colour(measurement: Measurement) -> str:
    return REAL if measurement.case.endswith("test items") else RANDOM
