"""The progress of a job as Prometheus metrics: a file for node_exporter, or a Pushgateway."""

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from service.scoring.job import ScoringError
from service.scoring.progress import Snapshot

JOB = "ekiben-scoring"
FAMILIES = {
    "ekiben_scoring_rows": "Rows scored or rejected, by all runs of the job.",
    "ekiben_scoring_rejected_rows": "Rows rejected by this run.",
    "ekiben_scoring_planned_rows": "Rows of the plan so far.",
    "ekiben_scoring_rows_per_second": "Rows scored or rejected per second, lately.",
    "ekiben_scoring_workers": "Workers of this run.",
    "ekiben_scoring_updated_timestamp_seconds": "When these values were written, in seconds since 1970.",
}


def collect(snapshot: Snapshot, *, model: str, output: str) -> CollectorRegistry:
    """Return the metrics of a job with its model and its output as labels."""
    registry = CollectorRegistry()
    values = (
        snapshot.rows, snapshot.rejected, snapshot.planned, snapshot.rows_per_s, snapshot.workers, time.time()
    )  # fmt: skip
    for (name, text), value in zip(FAMILIES.items(), values, strict=True):
        Gauge(name, text, ("model", "output"), registry=registry).labels(model=model, output=output).set(value)
    return registry


class TextFile:
    """Writes a file `*.prom` for the textfile collector of node_exporter, in one step."""

    def __init__(self, path: Path, *, model: str, output: str) -> None:
        """Raises ScoringError for a name that the collector passes over."""
        if path.suffix != ".prom":
            raise ScoringError(f"--metrics-file {path}: expected a name that ends in .prom, as node_exporter does")
        self._path, self._model, self._output = path, model, output

    def __call__(self, snapshot: Snapshot) -> None:
        write_to_textfile(str(self._path), collect(snapshot, model=self._model, output=self._output))


class Pushgateway:
    """Pushes to a Pushgateway, into a group of the job and its output."""

    def __init__(self, url: str, *, model: str, output: str) -> None:
        self._url, self._model, self._output = url, model, output

    def __call__(self, snapshot: Snapshot) -> None:
        registry = collect(snapshot, model=self._model, output=self._output)
        push_to_gateway(self._url, job=JOB, grouping_key={"output": self._output}, registry=registry, timeout=3)
