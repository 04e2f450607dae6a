"""The SLO benchmark counts what fails, sees a stall, and searches the rates in a few runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.slo.assessment import Assessment
from benchmarks.slo.delayed_server import METADATA
from benchmarks.slo.known_delays import delayed_server
from benchmarks.slo.report import plot, summarise, table
from benchmarks.slo.runs import Run, Scenario
from benchmarks.slo.samples import SampleError, encode, load_samples
from benchmarks.slo.search import MAX_RATE, RESOLUTION, best_of, find_highest_rate
from tests.e2e.serving import ROOT

LATENCY_MS = {"50.00": 1.0, "90.00": 2.0, "95.00": 2.5, "99.00": 3.0, "99.90": 4.0}


def make_run(rate: float, *, valid: bool, scenario: Scenario = Scenario.SERVER) -> Run:
    return Run(
        scenario=scenario,
        valid=valid,
        offered_rate=rate,
        completed_rate=rate,
        num_queries=1000,
        mean_ms=1.0,
        latency_ms=LATENCY_MS,
        client_share=0.1,
    )


def slo(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.slo", "--url", url, "--seconds", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def search(capacity: float, first_rate: float) -> list[Run]:
    return list(find_highest_rate(lambda rate: make_run(rate, valid=rate <= capacity), first_rate))


@pytest.mark.parametrize("capacity", [0.7, 3.0, 100.0, 12_345.0])
def test_the_search_ends_just_below_the_capacity(capacity: float) -> None:
    runs = search(capacity, 50.0)
    best = best_of(runs)
    assert best is not None
    assert capacity / RESOLUTION <= best.completed_rate <= capacity
    assert len(runs) <= 30


def test_a_search_without_an_answer_ends() -> None:
    assert best_of(search(0.0, 50.0)) is None
    fastest = best_of(search(10 * MAX_RATE, 50.0))
    assert fastest is not None
    assert fastest.completed_rate >= MAX_RATE / RESOLUTION


def test_one_failed_run_does_not_end_a_rate() -> None:
    calls: list[float] = []

    def measure_at(rate: float) -> Run:
        calls.append(rate)
        return make_run(rate, valid=rate <= 100 and len(calls) != 1)

    best = best_of(list(find_highest_rate(measure_at, 50.0)))
    assert best is not None
    assert best.completed_rate >= 100 / RESOLUTION


def test_a_refused_query_is_no_answer(tmp_path: Path) -> None:
    with delayed_server(fail_every=10) as url:
        done = slo(
            url, "--model", "delayed", "--scenario", "single-stream", "--json", str(tmp_path / "assessment.json")
        )
    assert done.returncode == 1
    assessment = json.loads((tmp_path / "assessment.json").read_text())
    [run] = assessment["runs"]
    assert not assessment["holds"]
    assert not run["valid"]
    # The first run, which is not reported, may have ended between two failures.
    assert run["num_queries"] // 10 <= run["failures"]["status 503"] <= run["num_queries"] // 10 + 1
    assert "queries failed: status 503" in done.stdout


def test_a_stall_is_in_the_99th_percentile(tmp_path: Path) -> None:
    options = ["--model", "delayed", "--rate", "300", "--p99-ms", "500", "--json", str(tmp_path / "assessment.json")]
    # The first run has at most 200 queries, the one that is judged 662 or more.
    with delayed_server(delay_ms=5, stall_after=400, stall_s=1) as url:
        done = slo(url, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    [run] = json.loads((tmp_path / "assessment.json").read_text())["searched"]
    # The requests that were due in the first half of the stall waited at least half a second, and so for the rest.
    assert run["latency_ms"]["99.00"] >= 500
    assert "no rate keeps p99 <= 500 ms" in done.stdout


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    save_file({"inputs/y": np.zeros((2, 4), np.float32)}, tmp_path / "other.safetensors")
    with delayed_server() as stopped:
        pass
    done = slo(stopped, "--model", "delayed")
    assert (done.returncode, done.stderr.strip()) == (2, f"{stopped}/v2/models/delayed: [Errno 111] Connection refused")
    with delayed_server() as url:
        cases = {
            "there is no tensor inputs/x; the file has inputs/y": ["--data", str(tmp_path / "other.safetensors")],
            "--output: delayed has no output 'logits'; it has scores": ["--output", "logits"],
            "--scenario accuracy needs --data with targets": ["--scenario", "accuracy"],
            "--header: 'x' is not NAME: VALUE": ["--header", "x"],
        }
        for message, options in cases.items():
            done = slo(url, "--model", "delayed", *options)
            assert done.returncode == 2
            assert message in done.stderr


def test_files_and_metadata_make_requests(tmp_path: Path) -> None:
    with delayed_server() as url:
        default = load_samples(url, "delayed", headers={"X-Team": "a"})
        assert len(set(default.requests)) == 64
        assert b"X-Team: a\r\n" in default.requests[0]
        save_file({"inputs/x": np.ones((3, 4), np.float32), "targets": np.array([1, 0, 1])}, tmp_path / "data")
        read = load_samples(url, "delayed", data=tmp_path / "data", headers={})
        assert read.requests[0] == encode(url, "delayed", {"x": np.ones((1, 4), np.float32)}, "scores", {})
        save_file({"inputs/x": np.ones((3, 4), np.float32), "targets": np.array([1])}, tmp_path / "data")
        with pytest.raises(SampleError, match="the tensors have 1, 3 items"):
            load_samples(url, "delayed", data=tmp_path / "data", headers={})
    assert METADATA["name"] == "delayed"


def test_texts_are_packed() -> None:
    request = encode("http://h:1", "m", {"t": np.array([[b"ab"]])}, None, {})
    assert request.startswith(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h:1\r\n")
    assert request.endswith(b"\x02\x00\x00\x00ab")


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
