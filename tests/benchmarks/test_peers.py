"""The peers benchmark encodes workloads correctly, rejects incorrect responses, and reports what it measured."""

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import client, load
from benchmarks.peers.bodies import FORMATS
from benchmarks.peers.check import check
from benchmarks.peers.compare import comparison
from benchmarks.peers.load import Load, Point, measure
from benchmarks.peers.processes import REQUIREMENTS, ROOT, PeerError
from benchmarks.peers.registry import PEERS
from benchmarks.peers.report import medians, plot, tables, write
from benchmarks.peers.servers import model as servers
from benchmarks.peers.workloads import NUM_ITEMS, STEPS, Workload

RNG = np.random.default_rng(5)


def workload(model: str) -> Workload:
    """A workload whose probabilities follow from the inputs by a rule that a server without a model can apply."""
    if model == "mnist-cnn":
        inputs = {"images": RNG.integers(0, 256, (NUM_ITEMS, 28, 28), dtype=np.uint8)}
    else:
        lengths = RNG.integers(1, STEPS + 1, NUM_ITEMS)
        inputs = {
            "ids": RNG.integers(1, 99, (NUM_ITEMS, STEPS)) * (np.arange(STEPS) < lengths[:, None]),
            "lengths": lengths,
        }
    return Workload(model=model, file=Path(), inputs=inputs, probabilities=rule(inputs), texts=())


def rule(inputs: dict[str, Any]) -> np.ndarray:
    values = np.asarray(inputs["images"] if "images" in inputs else inputs["ids"])
    sums = values.reshape(len(values), -1).sum(1).astype(np.float32)
    scores = np.column_stack([sums % 7 + 1, sums % 11 + 1])
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


class Handler(BaseHTTPRequestHandler):
    """Serves the wire format `json`, with `offset` added to the probabilities."""

    protocol_version = "HTTP/1.1"
    offset = 0.0
    status = 200

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"probabilities": (rule(document) + self.offset).tolist()}).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class PatientServer(ThreadingHTTPServer):
    request_queue_size = 64  # 16 threads connect at once; beyond the default of 5, connections are reset
    daemon_threads = True


@pytest.fixture
def server() -> Iterator[Any]:
    handler = type("FixtureHandler", (Handler,), {})
    http = PatientServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield SimpleNamespace(port=http.server_address[1], cpu_s=lambda: sum(os.times()[:2]), handler=handler)
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.parametrize("model", ["mnist-cnn", "news-lstm"])
def test_check_accepts_correct_probabilities_and_rejects_incorrect_ones(server: Any, model: str) -> None:
    peer, work, wire_format = PEERS["fastapi"], workload(model), FORMATS["json"]
    assert check(server, peer, work, wire_format) < 1e-6
    server.handler.offset = 1e-3
    with pytest.raises(PeerError, match=r"differ by 0\.001 from"):
        check(server, peer, work, wire_format)
    server.handler.offset = float("nan")
    with pytest.raises(PeerError, match="differ by nan from"):
        check(server, peer, work, wire_format)


@pytest.mark.parametrize("tool", ["wrk", "client"])
def test_measure_counts_requests_and_errors(server: Any, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if tool == "wrk" and load.generator() != "wrk":
        pytest.skip("wrk is not installed")
    monkeypatch.setattr(load, "generator", lambda: tool)
    monkeypatch.chdir(ROOT)
    server.handler.status = 500
    one = Load(model="mnist-cnn", body="json", rows=1, connections=2)
    point = measure("x", server, one, workload("mnist-cnn"), FORMATS["json"], seconds=1, warm_up_s=1)
    assert point.requests_per_s > 5
    assert 0 < point.p50_ms <= point.p99_ms
    assert point.cpu_us_per_request > 0
    assert point.errors >= point.requests_per_s * 0.9


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("model", ["mnist-cnn", "news-lstm"])
def test_v2_formats_encode_the_tensors(model: str, columns: bool) -> None:
    work, items, suffix = workload(model), slice(3, 6), "-columns" if columns else ""
    as_json = FORMATS[f"v2-json{suffix}"].encode(work, items)
    as_binary = FORMATS[f"v2-binary{suffix}"].encode(work, items)
    assert as_json.path == as_binary.path == f"/v2/models/{model}/infer"
    head = int(as_binary.headers["Inference-Header-Content-Length"])
    tail = as_binary.body[head:]
    inputs = json.loads(as_json.body)["inputs"], json.loads(as_binary.body[:head])["inputs"]
    for listed, binary in zip(*inputs, strict=True):
        expected = work.rows(items)[listed["name"]]
        assert listed["shape"] == binary["shape"] == [*expected.shape, *([1] if columns and expected.ndim == 1 else [])]
        assert listed["data"] == expected.ravel().tolist()
        size = binary["parameters"]["binary_data_size"]
        assert np.frombuffer(tail[:size], expected.dtype).tolist() == listed["data"]
        tail = tail[size:]
    assert not tail


def test_rows_have_no_steps_that_none_of_them_needs() -> None:
    work = workload("news-lstm")
    for items in (slice(0, 1), slice(3, 6)):
        rows = work.rows(items)
        assert rows["ids"].shape == (len(rows["lengths"]), rows["lengths"].max())
        assert np.array_equal(rows["ids"], work.inputs["ids"][items, : rows["lengths"].max()])


@pytest.mark.parametrize("model", ["mnist-cnn", "news-lstm"])
def test_the_servers_read_the_bytes_of_the_raw_format(model: str) -> None:
    work, items = workload(model), slice(3, 6)
    server = servers.Model.__new__(servers.Model)
    server.is_image, server.shape = model == "mnist-cnn", [28, 28]
    feeds = server.from_bytes(FORMATS["raw"].encode(work, items).body)
    rows = work.rows(items)
    assert feeds.keys() == rows.keys()
    assert all(np.array_equal(feeds[name], rows[name]) for name in rows)


def test_the_bodies_of_a_load_have_their_own_headers(tmp_path: Path) -> None:
    work = workload("news-lstm")
    requests = [FORMATS["v2-binary"].encode(work, slice(i, i + 1)) for i in range(8)]
    load.write_bodies(requests, tmp_path)
    for number, request in enumerate(requests, start=1):
        assert (tmp_path / str(number)).read_bytes() == request.body
        assert client.read_headers(tmp_path / f"{number}.headers") == request.headers


def test_v2_formats_decode_the_response() -> None:
    probabilities = np.array([[0.25, 0.75]], np.float32)
    output = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2]}
    head = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": 8}}]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    assert np.array_equal(FORMATS["v2-binary"].decode(headers, head + probabilities.tobytes()), probabilities)
    body = json.dumps({"outputs": [{**output, "data": [0.25, 0.75]}]}).encode()
    assert np.array_equal(FORMATS["v2-json"].decode({}, body), probabilities)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_server_formats_and_pinned_requirements(name: str) -> None:
    peer = PEERS[name]
    for body in ("json", "binary"):
        for model in ("mnist-cnn", "news-lstm"):
            assert peer.format_name(body, model) in {None, *FORMATS}
    if peer.command:
        assert name.startswith("ekiben")
        return
    assert (ROOT / "benchmarks" / "peers" / "servers" / f"{peer.module}.py").is_file()
    for line in (REQUIREMENTS / f"{peer.environment}.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line), (
            "expected only pinned versions, and no index address"
        )


def point(peer: str, **changes: Any) -> Point:
    fields = {"model": "mnist-cnn", "body": "json", "rows": 1, "connections": 32, "requests_per_s": 100.0}
    return Point(
        **{**fields, "peer": peer, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us_per_request": 50.0, "errors": 0, **changes}
    )


def test_medians_takes_the_median_of_figures_and_the_sum_of_errors() -> None:
    (one,) = medians([point("a", p99_ms=p99, errors=1) for p99 in (9.0, 2.0, 3.0)])
    assert (one.p99_ms, one.errors) == (3.0, 3)


def test_comparison_takes_the_best_configuration_of_each_side() -> None:
    points = [
        point("ekiben-x", cpu_us_per_request=40.0, requests_per_s=300.0),
        point("triton", cpu_us_per_request=80.0, requests_per_s=200.0),
        point("triton-w2", cpu_us_per_request=100.0, requests_per_s=250.0),
        point("limit-noop", cpu_us_per_request=1.0, requests_per_s=9000.0),
    ]
    assert (
        comparison(points)[-2]
        == "| mnist-cnn, json, 1 item, c=32 | 0.50 | – | – | 1.20 (triton-w2) | 1.00 (triton) | – |"
    )


def test_write_and_plot_produce_the_documented_files(tmp_path: Path) -> None:
    write(tmp_path, [point("ekiben-x"), point("triton")], {"ray": "a | reason"}, {"repeats": 1})
    document = json.loads((tmp_path / "results.json").read_text())
    fields = "peer model body rows connections requests_per_s p50_ms p99_ms cpu_us_per_request errors"
    assert [set(entry) for entry in document["points"]] == [set(fields.split())] * 2
    assert document["versions"]["triton"]["nvidia-pytriton"] == "0.7.0"
    assert "| ray | a / reason |" in tables([], document["failures"])
    plot([point("ekiben-x"), point("triton")], tmp_path / "results.png")
    assert (tmp_path / "results.png").stat().st_size > 10_000
