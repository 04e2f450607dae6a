"""Compare Ekiben with the best of the peers, for each load.

The table has ratios: below 1 is better for CPU time and p99, above 1 for throughput.
"""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.peers.load import Load, Point

OURS, LIMITS = "ekiben", "limit-"
BASELINES = ("triton", "fastapi", "bentoml")


def comparison(points: Sequence[Point]) -> list[str]:
    """Lines of a table; each measure takes the best configuration of each side, over all numbers of workers."""
    rows = [row for load in _loads(points) if (row := _row(load, [p for p in points if _load(p) == load]))]
    if not rows:
        return []
    columns = [f"CPU / {name}'s" for name in BASELINES]
    columns += ["req/s / best peer's", "p99 / best peer's", "CPU / bare granian's"]
    return [
        "### Ekiben compared with its peers",
        "",
        "| load | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
        *rows,
        "",
    ]


def _load(point: Point) -> Load:
    return Load(model=point.model, body=point.body, rows=point.rows, connections=point.connections)


def _loads(points: Iterable[Point]) -> list[Load]:
    return sorted({_load(p) for p in points}, key=lambda load: (load.model, load.rows, load.body, load.connections))


def _row(load: Load, points: list[Point]) -> str:
    ours = [point for point in points if point.peer.startswith(OURS)]
    peers = [point for point in points if not point.peer.startswith((OURS, LIMITS))]
    if not ours or not peers:
        return ""
    cost, rate, p99 = _measure("cpu_us_per_request"), _measure("requests_per_s"), _measure("p99_ms")
    cells = [_ratio(ours, _points_of(points, name), cost, min) for name in BASELINES]
    for measure, better in ((rate, max), (p99, min)):
        best = better(peers, key=measure)
        cells.append(f"{_ratio(ours, [best], measure, better)} ({best.peer})")
    cells.append(_ratio(ours, _points_of(points, "limit-granian"), cost, min))
    rows = "1 item" if load.rows == 1 else f"{load.rows} items"
    return f"| {load.model}, {load.body}, {rows}, c={load.connections} | " + " | ".join(cells) + " |"


def _measure(name: str) -> Callable[[Point], float]:
    return lambda point: getattr(point, name)


def _points_of(points: list[Point], peer: str) -> list[Point]:
    return [point for point in points if point.peer in {peer, f"{peer}-w2"}]


def _ratio(ours: list[Point], others: list[Point], measure: Callable[[Point], float], better: Callable) -> str:
    if not others:
        return "–"
    return f"{better(map(measure, ours)) / better(map(measure, others)):.2f}"
