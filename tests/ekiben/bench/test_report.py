"""Text, table, JSON and picture of an assessment."""

import json
from pathlib import Path

from ekiben.bench.assessment import Assessment
from ekiben.bench.report import describe, plot, summarise, table, write_json
from ekiben.bench.runs import Scenario
from ekiben.bench.search import best_of
from tests.ekiben.bench.run_results import make_run


def test_reports(tmp_path: Path) -> None:
    searched = [make_run(100, valid=True), make_run(200, valid=False)]
    assessment = Assessment(
        url="http://h:1",
        model="m",
        p99_ms=20,
        runs=[make_run(50, valid=True, scenario=Scenario.SINGLE_STREAM)],
        searched=searched,
        highest=best_of(searched),
        accuracy=0.5,
    )
    assert summarise(assessment) == "m: 100 requests/s keep p99 <= 20 ms (p99 3.0 ms)\nm: accuracy 50.00%"
    assert table({"a": assessment}).splitlines()[-1] == "| a | 100 | 1.0 | 3.0 | 1.00 | 3.00 |"
    plot(assessment, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_a_line() -> None:
    line = describe(make_run(100, valid=True))
    latencies = "mean 1.00, p50 1.00, p90 2.00, p95 2.50, p99 3.00, p99.9 4.00"
    assert line == f"server: offered 100/s, answered 100/s, ms: {latencies}"


def test_json_has_what_the_exit_status_says(tmp_path: Path) -> None:
    assessment = Assessment(url="http://h:1", model="m", p99_ms=20, runs=[], searched=[make_run(9, valid=False)])
    write_json(assessment, tmp_path / "a.json")
    written = json.loads((tmp_path / "a.json").read_text())
    assert (written["holds"], written["highest"], written["searched"][0]["scenario"]) == (False, None, "server")
    assert summarise(assessment) == "m: no rate keeps p99 <= 20 ms"
