"""A scrape after a seeded random load equals what was sent: per route, model and status, over all workers."""

import http.client
import json
import random
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.http.router import served_routes
from service.http.telemetry.exposition import FAMILIES
from tests.e2e.serving import ROOT, SERVE, ServerProcess
from tests.service.bundles import NAMES, example_inputs, write_bundle
from tests.service.engine.versions import flip_byte
from tests.service.hosts import GRANIAN, JSON, ask, running_server, send, wait_until
from tests.service.poisoned import NAN_NAMES, poisoned_item, write_poisoned_bundle
from tests.service.requests import request_body

Sent = tuple[str, str, str]  # route, model or "", status
IMAGES, TEXTS, LETTERS = NAMES["image-classifier"], NAMES["text-classifier"], NAMES["language-model"]
BROKEN, POISONED = NAMES["series-tagger"], NAN_NAMES["image-classifier"]
LIMIT = 1 << 16
# Much work, for a client that leaves.
LONG = json.dumps({"model": LETTERS, "prompt": ["the "] * 8, "max_tokens": 150, "seed": 1})
PIXELS = example_inputs("image-classifier", batch=2)["images"]
INFER = json.dumps(
    {"inputs": [{"name": "images", "shape": [2, 4, 4], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}]}
)
NUM_REQUESTS, NUM_CLIENTS = 300, 6


def case(  # noqa: PLR0917 - a row of the table below
    method: str, path: str, body: Any, route: str, model: str, status: int, **headers: str
) -> Callable[[int], Sent]:
    """A request that one answer answers."""
    content = body if isinstance(body, str) else json.dumps(body)

    def run(port: int) -> Sent:
        got, _, answer = ask(port, method, path, content, **{**(JSON if content else {}), **headers})
        assert got == status, (path, got, answer)
        return route, model, str(status)

    return run


def too_large(port: int) -> Sent:
    """A body that is refused for its declared length, before it is sent."""
    with send(port, "/classify", LIMIT + 1, b"") as client:
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
    return "/classify", "", "413"


def leaves_before_the_body(port: int) -> Sent:
    send(port, "/predict", 1000, b'{"model"').close()
    return "/predict", "", "499"


def sends_too_slowly(port: int) -> Sent:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"POST /generate HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 50\r\ncontent-length: 9\r\n\r\n{")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 504
    return "/generate", "", "504"


def leaves_a_stream(port: int) -> Sent:
    client = send(port, "/generate/stream", len(LONG), LONG.encode())
    seen = b""
    while b"data:" not in seen:
        part = client.recv(4096)
        assert part, seen
        seen += part
    client.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )  # a reset: nothing of the answer is read
    client.close()
    return "/generate/stream", LETTERS, "499"


def body_of(family: str, **fields: Any) -> dict[str, Any]:
    return {**request_body(family), **fields}


EXCHANGES: dict[str, Callable[[int], Sent]] = {
    "images": case("POST", "/classify", body_of("image-classifier"), "/classify", IMAGES, 200),
    "images by another route": case("POST", "/predict", body_of("image-classifier"), "/predict", IMAGES, 200),
    "tensors": case("POST", f"/v2/models/{IMAGES}/infer", INFER, "/v2/models/{model}/infer", IMAGES, 200),
    "texts": case("POST", "/sequence-predict", body_of("text-classifier"), "/sequence-predict", TEXTS, 200),
    "a generation": case("POST", "/generate", body_of("language-model"), "/generate", LETTERS, 200),
    "a stream": case("POST", "/generate/stream", body_of("language-model"), "/generate/stream", LETTERS, 200),
    "models": case("GET", "/models", "", "/models", "", 200),
    "a model": case("GET", f"/models/{IMAGES}", "", "/models/{model}", "", 200),
    "alive": case("HEAD", "/livez", "", "/livez", "", 200),
    "the document": case("GET", "/docs.json", "", "/docs.json", "", 200),
    "no JSON": case("POST", "/classify", "{", "/classify", "", 400),
    "no such path": case("GET", "/nothing", "", "/...", "", 404),
    "no such path of the protocol": case("GET", "/v2/nothing", "", "/v2/...", "", 404),
    "no such model": case("POST", "/classify", body_of("image-classifier", model="x" * 50), "/classify", "", 404),
    "no such model of the protocol": case(
        "POST", "/v2/models/absent/infer", INFER, "/v2/models/{model}/infer", "", 404
    ),
    "a wrong method": case("DELETE", "/classify", "", "/classify", "", 405),
    "too large": too_large,
    "a wrong type": case("POST", "/classify", "x", "/classify", "", 415, content_type="text/plain"),
    "no field": case("POST", "/classify", {"model": IMAGES}, "/classify", IMAGES, 422),
    "no model": case("POST", "/classify", {"modle": IMAGES}, "/classify", "", 422),
    "no such metadata": case("GET", "/v2/models/absent", "", "/v2/models/{model}", "", 404),
    "a wrong item": case("POST", "/classify", body_of("image-classifier", images=[[[1]]]), "/classify", IMAGES, 422),
    "a wrong task": case("POST", "/sequence-predict", {"model": IMAGES, "texts": ["a"]}, "/sequence-predict", "", 422),
    "leaves before the body": leaves_before_the_body,
    "leaves a stream": leaves_a_stream,
    "not finite": case(
        "POST",
        "/classify",
        {"model": POISONED, "images": [poisoned_item("image-classifier")]},
        "/classify",
        POISONED,
        500,
    ),
    "not ready": case("POST", "/sequence-predict", body_of("series-tagger"), "/sequence-predict", "", 503),
    "too late": sends_too_slowly,
}
SUCCESSES = {"images": 1, "images by another route": 1, "tensors": 2}  # items of IMAGES, by request


DEPLOY = ROOT / "deploy"
FOREIGN = {"job", "instance"}  # Prometheus adds them
PARTS = {"summary": ("_count", "_sum"), "histogram": ("_bucket", "_sum", "_count")}
SUFFIXED = {
    name: {name + part for part in PARTS.get(family.kind, (family.suffix,))} for name, family in FAMILIES.items()
}


@pytest.fixture(scope="module")
def bundles(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tiny models, one of them broken, and one that computes NaN for an item."""
    root = tmp_path_factory.mktemp("load")
    shutil.copytree(served_bundles, root / "bundles")
    shutil.rmtree(root / "bundles" / BROKEN)
    flip_byte(write_bundle(root / "bundles", "series-tagger"))
    write_poisoned_bundle(root, "image-classifier")
    return root / "bundles"


@pytest.fixture(scope="module", params=[((*GRANIAN, "--workers", "2"), 2), (SERVE, 1)], ids=["granian", "bentoml"])
def host(request: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    command, num_workers = request.param
    settings = {"EKIBEN_READY_WHEN": "any", "EKIBEN_MAX_BODY_BYTES": str(LIMIT), "EKIBEN_TRITON_METRICS": "true"}
    settings |= {"EKIBEN_ACCESS_LOG": "0.001"}  # for what it counts
    settings |= {"EKIBEN_MAX_GENERATIONS": "1"}  # so that a stream of many texts is a long one
    with running_server(command, bundles, tmp_path_factory.mktemp("host"), **settings) as started:
        wait_until(lambda: sum(total(started, "ekiben_ready_workers").values()) == num_workers)
        num_ready = num_workers * (len(list(bundles.iterdir())) - 1)
        wait_until(lambda: sum(total(started, "ekiben_model_ready", "model").values()) == num_ready)
        yield started


def scrape(host: ServerProcess) -> list[Any]:
    status, _, text = ask(host.port, "GET", "/metrics")
    assert status == 200
    return [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]


def total(host: ServerProcess, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The values of a family by these labels."""
    values: Counter[tuple[str, ...]] = Counter()
    for sample in scrape(host):
        if sample.name == name and sample.value:
            values[tuple(sample.labels.get(label, "") for label in labels)] += int(sample.value)
    return values


def responses(host: ServerProcess) -> Counter[tuple[str, ...]]:
    """All responses but those to scrapes and to the probe that waits for the start."""
    found = total(host, "ekiben_http_requests_total", "route", "model", "status")
    return Counter({key: count for key, count in found.items() if key[0] not in {"/metrics", "/readyz"}})


def eventual(read: Callable[[], Any], expected: Any) -> Any:
    """What is read when it is as expected, or when it has not been for long enough to be sure."""
    end = time.monotonic() + 15
    while (found := read()) != expected and time.monotonic() < end:
        time.sleep(0.2)
    return found


def test_a_scrape_equals_what_was_sent(host: ServerProcess) -> None:
    seed = 20260131
    names = random.Random(seed).choices(list(EXCHANGES), k=NUM_REQUESTS)
    assert set(names) == set(EXCHANGES), "every outcome is in the load"
    time.sleep(1.5)  # what was asked before has been published
    before = responses(host)
    executed_before = total(host, "ekiben_engine_items_total", "model", "outcome")
    triton_before = total(host, "nv_inference_request_success", "model")
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        sent = Counter(pool.map(lambda name: EXCHANGES[name](host.port), names))
    assert eventual(lambda: responses(host) - before, sent) == sent
    # Another worker may answer the next scrape, so each family is given the second after which that one knows it, too.
    of_model = sum(count for (_, model, status), count in sent.items() if (model, status) == (IMAGES, "200"))
    expected = triton_before[IMAGES,] + of_model
    assert eventual(lambda: total(host, "nv_inference_request_success", "model")[IMAGES,], expected) == expected
    items = ("ekiben_engine_items_total", "model", "outcome")
    expected = executed_before[IMAGES, "executed"] + sum(SUCCESSES.get(name, 0) for name in names)
    assert eventual(lambda: total(host, *items)[IMAGES, "executed"], expected) == expected
    by_model = total_by_model(before + sent)
    assert eventual(lambda: total(host, "ekiben_http_model_seconds_count", "model"), by_model) == by_model


def total_by_model(found: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    by_model: Counter[tuple[str, ...]] = Counter()
    for (_, model, _), count in found.items():
        if model:
            by_model[model,] += count
    return by_model


def test_series_do_not_grow_with_what_clients_ask_for(host: ServerProcess) -> None:
    for run in EXCHANGES.values():
        run(host.port)
    time.sleep(1.5)
    before = num_series(host)
    for number in range(100):
        ask(host.port, "GET", f"/invented-{number}")
        ask(host.port, "GET", f"/v2/models/invented-{number}")
        ask(host.port, "POST", "/classify", json.dumps(body_of("image-classifier", model=f"invented-{number}")), **JSON)
    assert eventual(lambda: num_series(host), before) == before
    assert max(count for model, count in before.items() if model) <= 200
    assert {IMAGES, TEXTS, LETTERS, POISONED} <= set(before)


def num_series(host: ServerProcess) -> Counter[str]:
    """The number of series by model; "" has those of no model."""
    return Counter(sample.labels.get("model", "") for sample in scrape(host))


def test_every_family_is_shown_with_the_labels_that_are_declared(host: ServerProcess) -> None:
    for run in EXCHANGES.values():
        run(host.port)
    time.sleep(1.5)
    samples_by_family: dict[str, set[str]] = {}
    for sample in scrape(host):
        family = next(name for name in SUFFIXED if sample.name in SUFFIXED[name])
        samples_by_family.setdefault(family, set()).update(sample.labels.keys() - {"le"})
    assert {name: set(FAMILIES[name].labels) for name in samples_by_family} == samples_by_family
    # A refusal has to happen first, and a candidate has to be there: tests/service/http/rollout/test_traffic.py.
    absent = {"ekiben_engine_refused", "ekiben_candidate_answers", "ekiben_candidate_stopped"}
    assert set(FAMILIES) - set(samples_by_family) <= absent


def test_dashboard_and_alerts_use_metrics_and_labels_that_exist() -> None:
    labels_of = {sample: {*FAMILIES[name].labels, *FOREIGN} for name, samples in SUFFIXED.items() for sample in samples}
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in panels["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in panels["templating"]["list"][1:]]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    expressions += [rule["expr"] for rule in rules]
    texts = [target["legendFormat"] for panel in panels["panels"] for target in panel["targets"]]
    texts += [text for rule in rules for text in rule["annotations"].values()]
    assert len(expressions) > 30
    for expression in expressions:
        names = re.findall(r"\b(?:ekiben|process|nv|python|go|up)_\w+", expression)
        assert names, expression
        assert set(names) <= set(labels_of), expression
        allowed = set[str]().union(*(labels_of[name] for name in names))
        grouped = re.findall(r"(?:by|on|group_left) \(([^)]*)\)", expression)
        used = {label.strip() for labels in grouped for label in labels.split(",") if label.strip()}
        used |= set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
        assert used <= allowed | {"le"}, expression
    every = set[str]().union(*labels_of.values())
    assert {name for text in texts for name in re.findall(r"{{ *(?:\$labels\.)?(\w+) *}}", text)} <= every


def test_every_route_that_answers_is_a_declared_one(host: ServerProcess) -> None:
    assert {route for route, _, _ in responses(host)} <= {route.name for route in served_routes()}
