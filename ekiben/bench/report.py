"""The assessment of a service, as text, JSON and a picture."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ekiben.bench.assessment import Assessment
from ekiben.bench.runs import Run


def describe(run: Run) -> str:
    """One line for the terminal."""
    latency = ", ".join(f"p{name.rstrip('0').rstrip('.')} {value:.2f}" for name, value in run.latency_ms.items())
    offered = "" if run.offered_rate is None else f"offered {run.offered_rate:,.0f}/s, "
    state = "" if run.valid else f" - {run.reason}"
    return (
        f"{run.scenario}: {offered}answered {run.completed_rate:,.0f}/s, ms: mean {run.mean_ms:.2f}, {latency}{state}"
    )


def summarise(assessment: Assessment) -> str:
    lines = []
    if assessment.searched:
        if assessment.highest is None:
            lines.append(f"{assessment.model}: no rate keeps p99 <= {assessment.p99_ms:g} ms")
        else:
            best = assessment.highest
            lines.append(
                f"{assessment.model}: {best.completed_rate:,.0f} requests/s keep p99 <= {assessment.p99_ms:g} ms"
                f" (p99 {best.latency_ms['99.00']:.1f} ms)"
            )
        if assessment.limited_by_client:
            lines.append("the client used its core up: the service may be faster than what it was asked")
    if assessment.accuracy is not None:
        lines.append(f"{assessment.model}: accuracy {assessment.accuracy:.2%}")
    failures = {reason: count for run in assessment.runs for reason, count in run.failures.items()}
    lines += [f"{assessment.model}: {count} queries failed: {reason}" for reason, count in failures.items()]
    return "\n".join(lines)


def write_json(assessment: Assessment, path: Path) -> None:
    path.write_text(json.dumps({**asdict(assessment), "holds": assessment.holds}, indent=2) + "\n")


def plot(assessment: Assessment, path: Path) -> None:
    """Latency and answered rate over the offered rate."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    runs = sorted((run for run in assessment.searched if run.offered_rate), key=lambda run: run.offered_rate or 0)
    offered = [run.offered_rate for run in runs]
    figure, (latency, rate) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in ("50.00", "90.00", "99.00", "99.90"):
        latency.plot(offered, [run.latency_ms[name] for run in runs], marker=".", label=f"p{float(name):g}")
    latency.axhline(assessment.p99_ms, color="grey", linestyle=":", label=f"bound, {assessment.p99_ms:g} ms")
    latency.set(xlabel="offered, requests/s", ylabel="latency, ms", xscale="log", yscale="log", title=assessment.model)
    rate.plot(offered, offered, color="grey", linestyle=":", label="offered")
    for valid, marker in ((True, "o"), (False, "x")):
        part = [run for run in runs if run.valid is valid]
        label = "bound kept" if valid else "bound missed"
        rate.plot([run.offered_rate for run in part], [run.completed_rate for run in part], marker, label=label)
    rate.set(
        xlabel="offered, requests/s", ylabel="answered, requests/s", xscale="log", yscale="log", title=assessment.url
    )
    for axes in (latency, rate):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(assessments: Mapping[str, Assessment]) -> str:
    """A Markdown table with a row for each server."""
    lines = [
        "| server | highest rate, requests/s | p50, ms | p99, ms | unloaded p50, ms | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, assessment in assessments.items():
        unloaded, best = assessment.runs[0], assessment.highest
        rate = "none" if best is None else f"{'at least ' * assessment.limited_by_client}{best.completed_rate:,.0f}"
        loaded = ["", ""] if best is None else [f"{best.latency_ms[key]:.1f}" for key in ("50.00", "99.00")]
        quiet = [f"{unloaded.latency_ms[key]:.2f}" for key in ("50.00", "99.00")]
        lines.append(f"| {' | '.join([name, rate, *loaded, *quiet])} |")
    return "\n".join(lines)
