"""Both hosts answer with the same bytes, count what they answered, and notice clients that disconnect."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import SERVE, ServerProcess
from tests.service.bundles import FAMILIES, NAMES, TASK_OF_FAMILY, example_inputs
from tests.service.disconnects import disconnect_at_random, num_descriptors
from tests.service.event_streams import read_events
from tests.service.hosts import GRANIAN, IMAGES, JSON, ask, classify, counted, running_server, send, wait_until
from tests.service.requests import request_body

PIXELS = example_inputs("image-classifier", batch=1)["images"]


@pytest.fixture(scope="module")
def granian(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path_factory.mktemp("granian")) as started:
        yield started


@pytest.fixture(scope="module")
def bentoml(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(SERVE, served_bundles, tmp_path_factory.mktemp("bentoml")) as started:
        yield started


def infer(**extra: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", **extra}]}


BINARY = json.dumps(infer(parameters={"binary_data_size": 16}) | {"parameters": {"binary_data_output": True}})
STREAMED = {"model": "tiny-chat", "prompt": ["a", "b"], "seed": 7, "max_tokens": 40, "logprobs": True}
TRITON = {"text_input": "a", "parameters": {"seed": 7, "max_tokens": 40, "details": True}}
REQUESTS: dict[str, tuple[str, str, str | bytes, dict[str, str]]] = {
    **{family: ("POST", f"/{TASK_OF_FAMILY[family]}", json.dumps(request_body(family)), JSON) for family in FAMILIES},
    "tensors": ("POST", "/v2/models/tiny-images/infer", json.dumps(infer(data=PIXELS.tolist())), {}),
    "bytes": (
        "POST", "/v2/models/tiny-images/infer", BINARY.encode() + PIXELS.tobytes(),
        {"inference-header-content-length": str(len(BINARY))},
    ),
    "blanks around a number": (
        "POST", "/v2/models/tiny-images/infer", BINARY.encode() + PIXELS.tobytes(),
        {"inference-header-content-length": f"\t {len(BINARY)} \t"},
    ),
    "a header twice": (
        "POST", "/classify", IMAGES, {**JSON, "X-Request-Timeout-Ms": "first", "x-request-timeout-ms": "5000"},
    ),
    "a header that is not ASCII": ("POST", "/classify", IMAGES, {**JSON, "x-request-timeout-ms": "\xff"}),
    "a content type that is not ASCII": ("POST", "/classify", IMAGES, {"content-type": "application/json; x=\xff"}),
    "server": ("GET", "/v2", b"", {}),
    "metadata": ("GET", "/v2/models/tiny-tags", b"", {}),
    "model ready": ("GET", "/v2/models/tiny-tags/ready", b"", {}),
    "ready": ("GET", "/readyz", b"", {}),
    "ready in OIP": ("GET", "/v2/health/ready", b"", {}),
    "alive": ("GET", "/livez", b"", {}),
    "no such path": ("GET", "/nothing", b"", {}),
    "no such page of the protocol": ("GET", "/v2/nothing", b"", {}),
    "wrong method": ("GET", "/classify", b"", {}),
    "wrong method of the framework": ("POST", "/docs.json", b"", {}),
    "no JSON": ("POST", "/classify", b"{", JSON),
    "a wrong item": ("POST", "/classify", json.dumps({**request_body("image-classifier"), "images": [1]}), JSON),
    "a wrong tensor": ("POST", "/v2/models/tiny-images/infer", json.dumps(infer(data=[256])), {}),
    "too large": ("POST", "/classify", b"", {**JSON, "content-length": str(17 << 20)}),
    "a HEAD": ("HEAD", "/models", b"", {}),
    "the API's description": ("GET", "/docs.json", b"", {}),
    "a stream": ("POST", "/generate/stream", json.dumps(STREAMED), JSON),
    "a stream of Triton's": ("POST", "/v2/models/tiny-chat/generate_stream", json.dumps(TRITON), JSON),
    "a stream that cannot begin": ("POST", "/generate/stream", json.dumps({**STREAMED, "prompt": ""}), JSON),
    "no such page of OpenAI's API": ("GET", "/v1/nothing", b"", {}),
    "no such model of OpenAI's API": ("GET", "/v1/models/nothing", b"", {}),
}  # fmt: skip
HEADERS_OF_THE_HOST = {"server", "date", "connection", "x-bentoml-request-id"}
LONG = {"model": NAMES["language-model"], "prompt": ["the "] * 8, "max_tokens": 150, "seed": 1}


@pytest.mark.parametrize("name", REQUESTS)
def test_both_hosts_answer_with_the_same_bytes(name: str, granian: ServerProcess, bentoml: ServerProcess) -> None:
    method, path, content, headers = REQUESTS[name]
    answers = []
    for host in (granian, bentoml):
        status, got, answer = ask(host.port, method, path, content, **headers, x_request_id="a-1")
        content_of: Any = joined_events if got.get("content-type") == "text/event-stream" else bytes
        answers.append((status, {key: got[key] for key in got.keys() - HEADERS_OF_THE_HOST}, content_of(answer)))
    assert answers[0] == answers[1]


def joined_events(body: bytes) -> dict[Any, Any]:
    """The events of each text of a stream as one: how a stream is divided into events depends on time."""
    joined: dict[Any, dict[str, Any]] = {}
    for name, document in read_events(body):
        whole = joined.setdefault((name, document.get("index")), {})
        for key, value in document.items():
            whole[key] = whole[key] + value if key in whole and key in {"text", "text_output", "logprobs"} else value
    return joined


@pytest.mark.parametrize(
    ("command", "num_workers"), [((*GRANIAN, "--workers", "2"), 2), (SERVE, 1)], ids=["granian", "bentoml"]
)
def test_metrics_cover_all_workers(
    command: tuple[str, ...], num_workers: int, served_bundles: Path, tmp_path: Path
) -> None:
    """On hosts of its own: workers publish once a second, so requests of other tests might be counted late."""
    executed = 'ekiben_engine_items_total{model="tiny-images",outcome="executed"'
    answered = 'ekiben_http_requests_total{model="tiny-images",route="/classify",status="200"}'
    with running_server(command, served_bundles, tmp_path) as host:
        wait_until(lambda: counted(host, "ekiben_ready_workers") == num_workers)
        before = counted(host, executed)
        for _ in range(12):  # each on a new connection, so on any worker
            assert classify(host.port)[0] == 200
        wait_until(lambda: (counted(host, executed), counted(host, answered)) == (before + 12, 12))


@pytest.mark.parametrize("host", ["granian", "bentoml"])
def test_a_disconnect_ends_a_generation(host: str, request: pytest.FixtureRequest) -> None:
    """Clients ask for seconds of work and disconnect: the work ends."""
    started: ServerProcess = request.getfixturevalue(host)
    content = json.dumps(LONG).encode()
    closed = 'ekiben_http_requests_total{model="tiny-letters",route="/generate",status="499"}'
    before = counted(started, closed)
    clients = [send(started.port, "/generate", len(content), content) for _ in range(60)]
    wait_until(lambda: counted(started, "ekiben_http_in_flight") > 0)
    for client in clients:
        client.close()
    wait_until(lambda: counted(started, "ekiben_http_in_flight") == 0)
    wait_until(lambda: counted(started, closed) > before)


@pytest.mark.parametrize("host", ["granian", "bentoml"])
def test_disconnects_leave_no_slot_and_no_descriptor(host: str, request: pytest.FixtureRequest) -> None:
    """Clients of streams disconnect at random moments; then as many texts as there are slots are generated at once."""
    started: ServerProcess = request.getfixturevalue(host)
    disconnect_at_random(started.port, num_clients=60, seed=1)
    wait_until(lambda: counted(started, "ekiben_http_in_flight") == 0)
    with ThreadPoolExecutor(8) as pool:
        posts = [pool.submit(ask, started.port, "POST", "/generate", json.dumps(LONG), **JSON) for _ in range(8)]
        assert [post.result()[0] for post in posts] == [200] * 8
    before = num_descriptors(started)
    disconnect_at_random(started.port, num_clients=60, seed=2)
    wait_until(lambda: num_descriptors(started) <= before)


@pytest.mark.parametrize("host", ["granian", "bentoml"])
def test_a_deadline_within_a_stream_is_its_last_event(host: str, request: pytest.FixtureRequest) -> None:
    """The text until then was sent; nothing follows the error."""
    started: ServerProcess = request.getfixturevalue(host)
    body = json.dumps(LONG)
    timeout_ms, answer = 20, b""
    while b'"text"' not in answer or b"event: end" in answer:
        headers = {**JSON, "x-request-timeout-ms": str(timeout_ms)}
        status, _, answer = ask(started.port, "POST", "/generate/stream", body, **headers)
        assert status in {200, 503, 504}
        timeout_ms += -1 if b"event: end" in answer else 2
    *events, (name, problem) = read_events(answer)
    assert {event for event, _ in events} == {""}
    assert (name, problem["code"], problem["status"]) == ("error", "timeout", 504)
