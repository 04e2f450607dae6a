"""Write the results as JSON, as tables and as a chart. Each figure is the median over the repeats."""

import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import LIMITS, OURS, comparison
from benchmarks.peers.load import Load, Point, generator
from benchmarks.peers.processes import versions
from benchmarks.peers.registry import PEERS

MEASURED = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us_per_request")
TITLES = {"json": "JSON", "binary": "binary"}


def medians(runs: Iterable[Point]) -> list[Point]:
    groups: dict[tuple[str, Load], list[Point]] = defaultdict(list)
    for run in runs:
        load = Load(model=run.model, body=run.body, rows=run.rows, connections=run.connections)
        groups[run.peer, load].append(run)
    return [
        replace(
            group[0],
            errors=sum(run.errors for run in group),
            **{name: statistics.median(getattr(run, name) for run in group) for name in MEASURED},
        )
        for group in groups.values()
    ]


def machine() -> dict[str, Any]:
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def write(folder: Path, runs: Sequence[Point], failures: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    points = medians(runs)
    document = {
        "points": [asdict(point) for point in points],
        "failures": dict(failures),
        "settings": {**settings, "load_generator": generator()},
        "machine": machine(),
        "versions": {peer.environment: versions(peer.environment) for peer in PEERS.values() if peer.environment},
        "runs": [asdict(run) for run in runs],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "results.md").write_text(tables(points, failures))


def tables(points: Sequence[Point], failures: Mapping[str, str]) -> str:
    """One table for each model, body and number of rows; the peer with the lowest CPU time comes first."""
    lines = comparison(points)
    for (model, body, rows), group in _group_by_load(points).items():
        connections = sorted({point.connections for point in group if not point.peer.startswith("limit-ort")})
        columns = [f"{measure} c={c}" for measure in ("CPU µs", "req/s", "p50/p99 ms") for c in connections]
        lines += [f"### {model}, {TITLES[body]}, {rows} {'item' if rows == 1 else 'items'} a request", ""]
        lines += ["| peer | " + " | ".join(columns) + " | errors |", "| --- |" + " --- |" * (len(columns) + 1)]
        for peer, cells in _sort_by_cpu(group):
            by_connections = {point.connections: point for point in cells}
            if peer.startswith("limit-ort"):
                # The loop without a server has no connections.
                by_connections = dict.fromkeys(connections, cells[0])
            row = [_cell(by_connections.get(c), "{0.cpu_us_per_request:,.0f}") for c in connections]
            row += [_cell(by_connections.get(c), "{0.requests_per_s:,.0f}") for c in connections]
            row += [_cell(by_connections.get(c), "{0.p50_ms:.2f}/{0.p99_ms:.2f}") for c in connections]
            name = f"**{peer}**" if peer.startswith(OURS) else peer
            lines.append(f"| {name} | " + " | ".join(row) + f" | {sum(point.errors for point in cells)} |")
        lines.append("")
    if failures:
        lines += ["### Not measured", "", "| peer | reason |", "| --- | --- |"]
        lines += [f"| {name} | {reason.replace('|', '/')} |" for name, reason in sorted(failures.items())]
        lines.append("")
    return "\n".join(lines)


def _cell(point: Point | None, form: str) -> str:
    return form.format(point) if point else "–"


def _group_by_load(points: Iterable[Point]) -> dict[tuple[str, str, int], list[Point]]:
    groups: dict[tuple[str, str, int], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.model, point.body, point.rows].append(point)
    return dict(sorted(groups.items(), key=lambda kind: (kind[0][0], kind[0][2], kind[0][1] != "json")))


def _sort_by_cpu(group: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    """Pairs of a peer and its points, ordered by the lowest CPU time of a request."""
    peers: dict[str, list[Point]] = defaultdict(list)
    for point in group:
        peers[point.peer].append(point)
    return sorted(peers.items(), key=lambda item: min(point.cpu_us_per_request for point in item[1]))


def plot(points: Sequence[Point], path: Path) -> None:
    """Plot CPU time of a request and throughput over connections, for each load of one item."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    groups = {kind: group for kind, group in _group_by_load(points).items() if kind[2] == 1} or _group_by_load(points)
    figure, axes = plt.subplots(len(groups), 2, figsize=(13, 4.2 * len(groups)), squeeze=False, layout="constrained")
    for (bars, lines), ((model, body, rows), group) in zip(axes, groups.items(), strict=True):
        peers = _sort_by_cpu(group)
        costs = [min(point.cpu_us_per_request for point in cells) for _, cells in peers]
        labels = bars.barh([peer for peer, _ in peers], costs, color=[_colour(peer) for peer, _ in peers])
        bars.bar_label(labels, fmt="{:,.0f}", padding=3, fontsize=7)
        bars.invert_yaxis()
        bars.set(xlabel="CPU time of a request, µs (lowest over connections)")
        bars.set_title(f"{model}, {TITLES[body]}, {rows} {'item' if rows == 1 else 'items'} a request", loc="left")
        curves = [(peer, sorted(cells, key=lambda point: point.connections)) for peer, cells in peers if len(cells) > 1]
        curves.sort(key=lambda curve: curve[1][-1].requests_per_s)
        for rank, (peer, curve) in enumerate(curves):
            x, y = [point.connections for point in curve], [point.requests_per_s for point in curve]
            style = {"color": _colour(peer), "linestyle": "--" if peer.endswith("-w2") else "-"}
            lines.plot(x, y, marker="o", markersize=3, linewidth=2 if peer.startswith(OURS) else 1, **style)
            place = {"xytext": (1.08, (rank + 0.5) / len(curves)), "textcoords": "axes fraction", "va": "center"}
            pointer = {"arrowstyle": "-", "color": "silver", "linewidth": 0.5}
            lines.annotate(peer, (x[-1], y[-1]), fontsize=7, arrowprops=pointer, **place)
        lines.set(xscale="log", yscale="log", xlabel="connections", ylabel="requests/s")
        ticks = sorted({point.connections for _, curve in curves for point in curve})
        lines.set_xticks(ticks, [str(tick) for tick in ticks])
        lines.minorticks_off()
        for axis in (bars, lines):
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _colour(peer: str) -> str:
    if peer.startswith(OURS):
        return "tab:red"
    return "silver" if peer.startswith(LIMITS) else "tab:blue"
