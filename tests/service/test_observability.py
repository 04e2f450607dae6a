"""Both hosts with everything observed: ids, spans, the access log, captured requests, and the metrics of all that."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.scoring.run import score
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.collector import Collector, attributes, collecting
from tests.service.hosts import GRANIAN, JSON, ask, running_server, send, wait_until
from tests.service.requests import SERIES, request_body

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
FIELDS = "texts,sequences,images,top_k,predictions,prompt,body"
ANSWERED = {"POST /classify": "image-classifier", "POST /sequence-predict": "text-classifier"}
# Method, path, body, headers and status of a request of each kind.
REQUESTS: dict[str, tuple[str, str, str, dict[str, str], int]] = {
    "an answer": ("POST", "/classify", json.dumps(request_body("image-classifier")), JSON, 200),
    "a stream": ("POST", "/generate/stream", json.dumps(request_body("language-model")), JSON, 200),
    "an error": ("POST", "/classify", "{", JSON, 400),
    "an error of the tensor protocol": ("POST", "/v2/models/absent/infer", "{}", JSON, 404),
    "an error of OpenAI's API": ("POST", "/v1/completions", "{}", JSON, 400),
    "a probe": ("GET", "/livez", "", {}, 200),
    "a wrong method": ("GET", "/classify", "", {}, 405),
    "a page of the framework": ("GET", "/docs.json", "", {}, 200),
    "an unknown path": ("GET", "/nothing", "", {}, 404),
}


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A service, the collector that it sends spans to, and what it writes."""

    server: ServerProcess
    collector: Collector
    log: Path
    capture: Path

    @property
    def port(self) -> int:
        return self.server.port

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the access log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith('{"time"')]

    def line(self, request_id: str) -> dict[str, Any]:
        wait_until(lambda: any(line["id"] == request_id for line in self.lines()))
        (line,) = (line for line in self.lines() if line["id"] == request_id)
        return line


def observed(command: tuple[str, ...], bundles: Path, folder: Path) -> Iterator[Observed]:
    settings = {
        "EKIBEN_ACCESS_LOG": "1",
        "EKIBEN_TRITON_METRICS": "true",
        "EKIBEN_CAPTURE": str(folder / "capture"),
        "EKIBEN_CAPTURE_FIELDS": FIELDS,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with (
        collecting() as collector,
        running_server(command, bundles, folder, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **settings) as server,
    ):
        yield Observed(server=server, collector=collector, log=folder / "log", capture=folder / "capture")


@pytest.fixture(scope="module", params=[GRANIAN, SERVE], ids=["granian", "bentoml"])
def host(request: Any, served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    yield from observed(request.param, served_bundles, tmp_path_factory.mktemp("observed"))


@pytest.mark.parametrize("name", REQUESTS)
def test_every_response_names_its_request_and_its_place_in_the_trace(host: Observed, name: str) -> None:
    method, path, body, headers, expected = REQUESTS[name]
    given = f"given-{name.replace(' ', '-').replace(chr(39), '')}"
    status, answered, _ = ask(host.port, method, path, body, **headers, x_request_id=given, traceparent=PARENT)
    assert (status, answered["x-request-id"]) == (expected, given)
    match = re.fullmatch(rf"00-{TRACE_ID}-([0-9a-f]{{16}})-01", answered["traceparent"])
    assert match, answered["traceparent"]
    assert match[1] != "00f067aa0ba902b7", "the span is the service's, not the client's"
    _, answered, _ = ask(host.port, method, path, body, **headers, x_request_id='a"b')
    assert re.fullmatch("[0-9a-f]{16}", answered["x-request-id"])
    line = host.line(given)
    assert (line["method"], line["status"], line["trace_id"]) == (method, expected, TRACE_ID)


def test_a_request_is_a_span_with_its_stages(host: Observed) -> None:
    body = json.dumps(request_body("image-classifier"))
    parent = "00-11111111111111111111111111111111-2222222222222222-01"
    _, answered, _ = ask(host.port, "POST", "/classify", body, **JSON, traceparent=parent, x_request_id="spans-1")
    spans = host.collector.trace
    wait_until(lambda: len(spans("1" * 32)) == 5)
    found = spans("1" * 32)
    server = found.pop("POST /classify")
    assert (server.kind, server.parent_span_id.hex()) == (2, "2" * 16)
    assert server.span_id.hex() == answered["traceparent"].split("-")[2]
    seen = attributes(server)
    assert (seen["http.request.method"], seen["http.route"], seen["http.response.status_code"]) == (
        "POST",
        "/classify",
        200,
    )
    assert (seen["ekiben.request.id"], seen["ekiben.model.name"]) == ("spans-1", "tiny-images")
    assert set(found) == {"receive", "queue", "compute", "answer"}
    assert all(span.parent_span_id == server.span_id for span in found.values())
    in_order = [found[name] for name in ("receive", "queue", "compute", "answer")]
    edges = [at for span in in_order for at in (span.start_time_unix_nano, span.end_time_unix_nano)]
    edges = [server.start_time_unix_nano, *edges, server.end_time_unix_nano]
    assert all(second >= first - 50_000 for first, second in pairwise(edges)), edges
    assert server.end_time_unix_nano - server.start_time_unix_nano < 60e9
    resource = host.collector.resources[-1]
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("ekiben", "test")


def test_a_stream_is_computed_within_its_span(host: Observed) -> None:
    body = json.dumps(request_body("language-model"))
    parent = "00-33333333333333333333333333333333-2222222222222222-01"
    ask(host.port, "POST", "/generate/stream", body, **JSON, traceparent=parent)
    wait_until(lambda: len(host.collector.trace("3" * 32)) == 5)
    found = host.collector.trace("3" * 32)
    assert set(found) == {"POST /generate/stream", "receive", "queue", "compute", "answer"}


def test_a_caller_that_does_not_sample_is_obeyed(host: Observed) -> None:
    parent = "00-55555555555555555555555555555555-2222222222222222-00"
    _, answered, _ = ask(host.port, "GET", "/models", traceparent=parent)
    assert answered["traceparent"].endswith("-00")
    ask(host.port, "GET", "/models", traceparent=parent.replace("5" * 32, "6" * 32)[:-1] + "1")
    wait_until(lambda: bool(host.collector.trace("6" * 32)))
    assert not host.collector.trace("5" * 32)


def test_the_access_log_has_sizes_and_the_model(host: Observed) -> None:
    body = json.dumps(request_body("text-classifier"))
    _, _, content = ask(host.port, "POST", "/sequence-predict", body, **JSON, x_request_id="sizes-1")
    line = host.line("sizes-1")
    assert line["route"] == "/sequence-predict"
    assert (line["model"], line["bytes_in"], line["bytes_out"]) == ("tiny-texts", len(body), len(content))
    assert line["version"]
    assert line["seconds"] > 0
    assert line["client"].startswith("127.0.0.1:")
    body = json.dumps(request_body("language-model"))
    _, _, content = ask(host.port, "POST", "/generate/stream", body, **JSON, x_request_id="sizes-2")
    assert host.line("sizes-2")["bytes_out"] == len(content)


def test_a_client_that_disconnects_is_logged_as_499(host: Observed) -> None:
    client = send(host.port, "/classify", 100, b"half")
    client.close()
    wait_until(lambda: any(line["status"] == 499 for line in host.lines()))
    (line,) = (line for line in host.lines() if line["status"] == 499)
    assert (line["route"], line["bytes_out"], line["model"]) == ("/classify", 0, None)


def test_openmetrics_has_exemplars_and_plain_text_has_none(host: Observed) -> None:
    body = json.dumps(request_body("image-classifier"))
    parent = "00-77777777777777777777777777777777-2222222222222222-01"
    ask(host.port, "POST", "/classify", body, **JSON, traceparent=parent)
    _, headers, text = ask(host.port, "GET", "/metrics", accept=OPENMETRICS)
    assert headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    exemplars = [sample.exemplar for sample in families["ekiben_http_request_seconds"].samples if sample.exemplar]
    assert "7" * 32 in {exemplar.labels["trace_id"] for exemplar in exemplars}
    (build,) = families["ekiben_build"].samples
    assert build.value == 1
    assert build.labels["python"] == ".".join(map(str, sys.version_info[:3]))
    _, headers, text = ask(host.port, "GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"trace_id" not in text


def test_triton_names_have_the_same_numbers(host: Observed) -> None:
    ask(host.port, "POST", "/classify", json.dumps(request_body("image-classifier")), **JSON)
    text = ask(host.port, "GET", "/metrics")[2].decode()

    def total(name: str) -> float:
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if re.match(rf'{name}\{{.*model="tiny-images"', line)
        )

    assert total("nv_inference_request_success") == total('ekiben_http_requests_total(?=.*status="200")') > 0
    assert total("nv_inference_count") == total('ekiben_engine_items_total(?=.*outcome="executed")') > 0
    assert total("nv_inference_exec_count") == total("ekiben_engine_batches_total") > 0
    assert total("nv_inference_request_duration_us") == pytest.approx(total("ekiben_http_model_seconds_sum") * 1e6)


def test_scoring_gives_the_answers_of_captured_requests(served_bundles: Path, tmp_path: Path) -> None:
    bodies = {
        "/sequence-predict": [
            {"model": "tiny-texts", "texts": ["the train leaves", "rice"]},
            {"model": "tiny-texts", "texts": ["goal"], "top_k": 2},
            {"model": "tiny-series", "sequences": SERIES},
        ],
        "/classify": [{"model": "tiny-images", "images": [[[n] * 4] * 4, [[9, 8, 7, n]] * 4]} for n in range(3)],
    }
    answers: dict[str, list[Any]] = {}
    for found in observed(GRANIAN, served_bundles, tmp_path):
        for path, of_path in bodies.items():
            for body in of_path:
                status, _, content = ask(
                    found.port, "POST", path, json.dumps(body), **JSON, authorization="Bearer secret"
                )
                assert status == 200
                answers.setdefault(body["model"], []).extend(json.loads(content)["predictions"])
        capture = found.capture
    # The service has ended: all that it captured is on the disk.
    for model, predictions in answers.items():
        (file,) = (capture / model).glob("*.parquet")
        rows = pq.read_table(file).to_pylist()
        assert [json.loads(row["ekiben_answer"])["predictions"][0] for row in rows] == predictions
        assert file.stat().st_mode & 0o77 == 0
        assert b"secret" not in file.read_bytes()
        score(model, [str(capture / model)], str(tmp_path / model), bundles=served_bundles, id_column="ekiben_id")
        scored = [
            row
            for part in sorted((tmp_path / model / "predictions").glob("*"))
            for row in pq.read_table(part).to_pylist()
        ]
        assert [row["label"] for row in scored] == [prediction["label"] for prediction in predictions]
        assert [row["probability"] for row in scored] == [prediction["probability"] for prediction in predictions]
