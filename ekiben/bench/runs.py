"""One run of MLPerf's LoadGen: a scenario, its latencies, and whether LoadGen finds it valid."""

import array
import json
import tempfile
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen

from ekiben.bench.client import Answer, Client, Query
from ekiben.bench.samples import Samples

# LoadGen cannot judge a 99th percentile by fewer queries.
MIN_QUERIES = 662
MULTI_STREAM_SAMPLES = 8
MAX_DURATION_FACTOR = 3
# The client needs a core; above this share of it, the client is what is measured.
CLIENT_LIMIT = 0.9
PERCENTILES = ("50.00", "90.00", "95.00", "99.00", "99.90")


class Scenario(StrEnum):
    """How LoadGen sends: the next query when the last is answered (one item, or eight), at random times, or at once."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    SERVER = "server"
    OFFLINE = "offline"


_LOADGEN = {
    Scenario.SINGLE_STREAM: loadgen.TestScenario.SingleStream,
    Scenario.MULTI_STREAM: loadgen.TestScenario.MultiStream,
    Scenario.SERVER: loadgen.TestScenario.Server,
    Scenario.OFFLINE: loadgen.TestScenario.Offline,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is measured: the address, the requests, and how many connections they share."""

    url: str
    samples: Samples
    connections: int = 64


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of one run. Latencies in milliseconds, rates per second.

    `valid`: LoadGen found the latency bound and its other conditions met, and every query was answered.
    `client_share`: CPU time of the client's thread as a share of the time.
    """

    scenario: Scenario
    valid: bool
    reason: str = ""
    offered_rate: float | None = None
    completed_rate: float
    num_queries: int
    mean_ms: float
    latency_ms: dict[str, float]
    failures: dict[str, int] = field(default_factory=dict)
    client_share: float


def measure(
    target: Target,
    scenario: Scenario,
    *,
    seconds: float,
    rate: float | None = None,
    p99_ms: float | None = None,
    seed: int = 0,
) -> Run:
    """Run a scenario for so many seconds. `rate` is that of the server scenario, or a first guess for the others."""
    settings = loadgen.TestSettings()
    settings.scenario, settings.mode = _LOADGEN[scenario], loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1e3)
    settings.min_query_count = 1
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed + 1
    if scenario is Scenario.SERVER:
        assert rate
        settings.server_target_qps = rate
        settings.server_coalesce_queries = True
        settings.server_target_latency_ns = round((p99_ms or 1e6) * 1e6)
        settings.server_target_latency_percentile = 0.99
        settings.min_duration_ms = round(max(seconds, MIN_QUERIES / rate) * 1e3)
        settings.max_duration_ms = round(settings.min_duration_ms * MAX_DURATION_FACTOR)
    elif scenario is Scenario.OFFLINE:
        # LoadGen sends as many items at once as it takes to fill the time at this rate.
        settings.offline_expected_qps = rate or 1.0
        settings.min_duration_ms = 0
    elif scenario is Scenario.MULTI_STREAM:
        settings.multi_stream_samples_per_query = MULTI_STREAM_SAMPLES
        settings.multi_stream_expected_latency_ns = round(1e9 / (rate or 100.0))
    else:
        settings.single_stream_expected_latency_ns = round(1e9 / (rate or 100.0))
    with tempfile.TemporaryDirectory(prefix="ekiben-slo-") as folder:
        begin = time.monotonic()
        client, busy_s = _start(target, settings, Path(folder))
        elapsed_s = time.monotonic() - begin
        results = _results(Path(folder))
    failed = sum(client.failures.values())
    reasons = [f"{failed} failed"] if failed else []
    latency = {name: results[f"result_{name}_percentile_latency_ns"] / 1e6 for name in PERCENTILES}
    if p99_ms is not None and latency["99.00"] > p99_ms:
        reasons.append(f"p99 {latency['99.00']:.1f} ms > {p99_ms:g} ms")
    if not reasons and results["result_validity"] != "VALID":
        reasons.append(str(results.get("result_invalid_reason") or results["early_stopping_result"]).strip())
    mean_ms = results["result_mean_latency_ns"] / 1e6
    # LoadGen gives no rate for eight items at a time, one query after the other.
    completed = next((results[key] for key in _RATES if key in results), MULTI_STREAM_SAMPLES / mean_ms * 1e3)
    return Run(
        scenario=scenario,
        valid=not reasons,
        reason="; ".join(reasons),
        offered_rate=results.get("result_scheduled_samples_per_sec"),
        completed_rate=completed,
        num_queries=results["result_query_count"],
        mean_ms=mean_ms,
        latency_ms=latency,
        failures=dict(client.failures),
        client_share=busy_s / elapsed_s,
    )


_RATES = (
    "result_completed_samples_per_sec",
    "result_samples_per_second",
    "result_qps_without_loadgen_overhead",
)


def measure_accuracy(target: Target) -> float:
    """Send every item once in LoadGen's accuracy mode; return the share whose label is the target."""
    targets = target.samples.targets
    assert targets is not None
    settings = loadgen.TestSettings()
    settings.scenario, settings.mode = loadgen.TestScenario.Offline, loadgen.TestMode.AccuracyOnly
    with tempfile.TemporaryDirectory(prefix="ekiben-slo-") as folder:
        client, _ = _start(target, settings, Path(folder), with_labels=True)
        if client.failures:
            raise RuntimeError(", ".join(f"{count} x {reason}" for reason, count in client.failures.items()))
        log = json.loads((Path(folder) / "mlperf_log_accuracy.json").read_text())
    labels = {entry["qsl_idx"]: int.from_bytes(bytes.fromhex(entry["data"]), "little", signed=True) for entry in log}
    assert len(labels) == len(targets), "LoadGen sends every item once"
    return sum(int(targets[i]) == label for i, label in labels.items()) / len(targets)


def _start(
    target: Target, settings: loadgen.TestSettings, folder: Path, *, with_labels: bool = False
) -> tuple[Client, float]:
    """Run LoadGen; its logs are in the folder. Return the client, whose failures are counted, and its CPU seconds."""
    samples = target.samples

    def on_answer(answer: Answer) -> None:
        number = answer.query.number
        if not with_labels or answer.failure:
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, 0, 0)])
            return
        content = array.array("q", [samples.label_of(dict(answer.headers), answer.body)])
        pointer, length = content.buffer_info()
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, pointer, length * content.itemsize)])

    client = Client(target.url, on_answer, connections=target.connections)
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False

    def issue(queries: Any) -> None:
        client.submit([Query(query.id, samples.requests[query.index]) for query in queries])

    system = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(len(samples.requests), len(samples.requests), lambda _: None, lambda _: None)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, logs, "")
        return client, client.busy_s()
    finally:
        client.close()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)


def _results(folder: Path) -> dict[str, Any]:
    """The figures of LoadGen's log."""
    prefix = ":::MLLOG "
    lines = (folder / "mlperf_log_detail.txt").read_text().splitlines()
    entries = [json.loads(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)]
    return {entry["key"]: entry["value"] for entry in entries}
