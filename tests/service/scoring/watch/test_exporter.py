"""The progress of a job as Prometheus reads it, from a file and from a real HTTP server that takes pushes."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.scoring.job import ScoringError
from service.scoring.progress import Progress, Snapshot
from service.scoring.watch.exporter import FAMILIES, Pushgateway, TextFile


@pytest.fixture
def snapshot() -> Snapshot:
    progress = Progress()
    progress.workers = 2
    progress.add_planned(10, committed=False)
    progress.add_done(4, 1)
    return progress.snapshot()


def values(text: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels["model"] == "m 1" and sample.labels["output"] == "/out"
    }


def check(text: str) -> None:
    found = values(text)
    assert set(found) == set(FAMILIES)
    assert found["ekiben_scoring_rows"] == 4
    assert found["ekiben_scoring_rejected_rows"] == 1
    assert found["ekiben_scoring_planned_rows"] == 10
    assert found["ekiben_scoring_workers"] == 2
    assert found["ekiben_scoring_updated_timestamp_seconds"] > 1.7e9


def test_a_text_file_is_replaced_as_a_whole(snapshot: Snapshot, tmp_path: Path) -> None:
    export = TextFile(tmp_path / "job.prom", model="m 1", output="/out")
    export(snapshot)
    export(snapshot)
    check((tmp_path / "job.prom").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["job.prom"]


@pytest.mark.parametrize("name", ["job.txt", "prom", ".prom", "job.prom.gz"])
def test_a_file_that_node_exporter_would_pass_over_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"^--metrics-file .*: expected a name that ends in \.prom"):
        TextFile(tmp_path / name, model="m 1", output="/out")


def test_a_pushgateway_gets_the_metrics_in_a_group_of_the_output(snapshot: Snapshot) -> None:
    received: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        Pushgateway(f"http://127.0.0.1:{server.server_port}", model="m 1", output="/out")(snapshot)
        thread.join()
    [(path, body)] = received
    assert path.startswith("/metrics/job/ekiben-scoring/output@base64/")
    check(body)
