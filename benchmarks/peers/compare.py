"""Ekiben against the best of the others, load by load: below 1 is better for costs and p99, above 1 for throughput."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.peers.load import Load, Point

OURS, LIMITS = "ekiben", "limit-"
YARDSTICKS = ("triton", "fastapi", "bentoml")


def comparison(points: Sequence[Point]) -> list[str]:
    """Lines of a table; each side with its best configuration, workers included, for each number."""
    rows = [row for load in _loads(points) if (row := _row(load, [p for p in points if _load(p) == load]))]
    if not rows:
        return []
    heads = [f"CPU / {name}'s" for name in YARDSTICKS]
    heads += ["req/s / best peer's", "p99 / best peer's", "CPU / bare granian's"]
    return [
        "### Ekiben against the others",
        "",
        "| load | " + " | ".join(heads) + " |",
        "| --- |" + " --- |" * len(heads),
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
    cost, rate, p99 = _number("cpu_us_per_request"), _number("requests_per_s"), _number("p99_ms")
    cells = [_ratio(ours, _named(points, name), cost, min) for name in YARDSTICKS]
    for number, better in ((rate, max), (p99, min)):
        best = better(peers, key=number)
        cells.append(f"{_ratio(ours, [best], number, better)} ({best.peer})")
    cells.append(_ratio(ours, _named(points, "limit-granian"), cost, min))
    rows = "1 item" if load.rows == 1 else f"{load.rows} items"
    return f"| {load.model}, {load.body}, {rows}, c={load.connections} | " + " | ".join(cells) + " |"


def _number(name: str) -> Callable[[Point], float]:
    return lambda point: getattr(point, name)


def _named(points: list[Point], peer: str) -> list[Point]:
    return [point for point in points if point.peer in {peer, f"{peer}-w2"}]


def _ratio(ours: list[Point], theirs: list[Point], number: Callable[[Point], float], better: Callable) -> str:
    if not theirs:
        return "–"
    return f"{better(map(number, ours)) / better(map(number, theirs)):.2f}"
