"""The blocking client against both hosts, and against a server that fails."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ekiben.client import (
    Client,
    ConnectionFailedError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    StreamEnd,
    TextEvent,
    UnavailableError,
)
from tests.e2e.serving import ROOT, environment, free_port, start
from tests.ekiben.client.conftest import FailingServer, answer
from tests.service.bundles import FAMILIES, NAMES, example_inputs
from tests.service.hosts import GRANIAN
from tests.service.requests import REQUEST_FIELDS, SERIES

IMAGE = [[7] * 4] * 4
PREDICTION = b'{"model": "m", "version": "v", "predictions": [1]}'


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def post(url: str, path: str, family: str) -> Any:
    response = httpx.post(url + path, json={"model": NAMES[family], **REQUEST_FIELDS[family]}, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("family", ["image-classifier", "series-classifier", "series-tagger", "text-classifier"])
def test_predictions_are_those_of_the_routes(family: str, client: Client, url: str) -> None:
    fields, name = REQUEST_FIELDS[family], NAMES[family]
    assert vars(client.predict(name, **fields)) == post(url, "/predict", family)
    is_image = family == "image-classifier"
    found = (client.classify if is_image else client.sequence_predict)(name, **fields)
    assert vars(found) == post(url, "/classify" if is_image else "/sequence-predict", family)


def test_pictures_and_arrays_of_every_form(client: Client, tmp_path: Path) -> None:
    pixels = np.array(IMAGE, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = [IMAGE, pixels, Image.fromarray(pixels), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()]
    found = client.classify(NAMES["image-classifier"], images=forms, top_k=1).predictions
    assert found == [found[0]] * 5
    series = [np.array(each, np.float32) for each in SERIES]
    name = NAMES["series-classifier"]
    as_lists = client.predict(name, sequences=[each.tolist() for each in series])
    assert client.predict(name, sequences=series) == as_lists


def test_texts_and_pictures_are_generated(client: Client, url: str) -> None:
    fields = {key: value for key, value in REQUEST_FIELDS["language-model"].items() if key != "prompt"}
    name, prompt = NAMES["language-model"], REQUEST_FIELDS["language-model"]["prompt"]
    found, expected = client.generate(name, prompt, **fields), post(url, "/generate", "language-model")
    assert [vars(each) for each in found.completions] == expected["completions"]
    assert (found.seed, found.version) == (expected["seed"], expected["version"])
    events = list(client.stream(name, [prompt, prompt], **fields))
    for index in (0, 1):
        parts = [event for event in events if isinstance(event, TextEvent) and event.index == index]
        assert "".join(event.text for event in parts) == found.completions[0].text
        assert [token for event in parts for token in event.logprobs or ()] == found.completions[0].logprobs
    assert isinstance(events[-1], StreamEnd)
    assert events[-1].completions == [{"finish_reason": "length", "tokens": 6}] * 2
    pictures = client.generate_images(NAMES["image-generator"], count=2, seed=1)
    assert [each[:8] for each in pictures.images] == [b"\x89PNG\r\n\x1a\n"] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_of_every_family(family: str, client: Client, url: str) -> None:
    inputs = example_inputs(family)
    found = client.infer(NAMES[family], inputs)
    metadata = httpx.get(f"{url}/v2/models/{NAMES[family]}").json()
    assert set(found.outputs) == {each["name"] for each in metadata["outputs"]}
    name = next(iter(found.outputs))
    again = client.infer(NAMES[family], inputs, outputs=[name], version=found.version)
    assert list(again.outputs) == [name]
    assert again.outputs[name].tobytes() == found.outputs[name].tobytes()


def test_models_and_readiness(client: Client) -> None:
    assert {each["name"] for each in client.models()} >= set(NAMES.values())
    assert client.model(NAMES["language-model"])["pair"] == "text -> language-model"
    assert client.ready()
    assert not Client(f"http://127.0.0.1:{free_port()}").ready()


def test_errors_say_what_is_wrong(client: Client) -> None:
    with pytest.raises(NotFoundError) as missing_model:
        client.predict("nobody", texts=["a"])
    assert (missing_model.value.slug, missing_model.value.status) == ("unknown-model", 404)
    with pytest.raises(InvalidRequestError) as invalid:
        client.classify(NAMES["image-classifier"], images=[IMAGE, b"junk"])
    assert [fault.pointer for fault in invalid.value.faults] == ["/images/1"]
    with pytest.raises(InvalidRequestError) as dtype:
        client.infer(NAMES["image-classifier"], {"images": np.zeros((1, 4, 4), np.float32)})
    assert "UINT8" in str(dtype.value)


def test_many_items_are_sent_in_parts_lazily_and_in_order(client: Client) -> None:
    name = NAMES["text-classifier"]
    size = client.model(name)["limits"]["max_items"]
    num_items, num_read = 5 * size + 3, 0

    def texts() -> Iterator[str]:
        nonlocal num_read
        for i in range(num_items):
            num_read += 1
            yield ["the train leaves", "rice", "a"][i % 3]

    found = client.predict_each(name, texts=texts(), concurrency=2, top_k=1)
    first = next(found)
    assert num_read <= 2 * size
    rest = list(found)
    single = client.predict(name, texts=["the train leaves", "rice", "a"], top_k=1).predictions
    assert [first, *rest] == [single[i % 3] for i in range(num_items)]
    assert list(client.predict_each(name, texts=[])) == []


def test_an_error_names_the_item_in_the_whole(client: Client) -> None:
    name = NAMES["image-classifier"]
    size = client.model(name)["limits"]["max_items"]
    images: Iterator[Any] = itertools.chain([IMAGE] * (2 * size + 1), [[[0]]], [IMAGE] * 5)
    found = client.predict_each(name, images=images)
    assert len(list(itertools.islice(found, 2 * size))) == 2 * size
    with pytest.raises(InvalidRequestError) as caught:
        next(found)
    assert [fault.pointer for fault in caught.value.faults] == [f"/images/{2 * size + 1}"]


def test_leaving_a_stream_ends_its_generation(client: Client, url: str) -> None:
    stream = client.stream(NAMES["language-model"], "the tr", seed=1)
    assert isinstance(next(stream), TextEvent)
    stream.close()
    end = time.monotonic() + 20
    while "ekiben_num_requests_running" in (text := httpx.get(f"{url}/metrics").text):
        lines = [line for line in text.splitlines() if line.startswith("ekiben_num_requests_running")]
        if sum(float(line.rpartition(" ")[2]) for line in lines) == 0:
            break
        assert time.monotonic() < end
    assert client.ready()


def test_a_refusal_is_followed_at_its_time_on_its_connection(failing: FailingServer) -> None:
    failing.answers = [[answer(503, b"{}", "retry-after: 1", "retry-after-ms: 120")], [answer(200, PREDICTION)]]
    begin = time.monotonic()
    with Client(failing.url) as client:
        assert client.predict("m", texts=["a"]).predictions == [1]
    assert 0.11 < time.monotonic() - begin < 0.9
    assert [number for number, _ in failing.requests] == [0, 0]


def test_calls_of_many_threads_keep_their_connections(failing: FailingServer) -> None:
    failing.answers = [[answer(503, b"{}", "retry-after-ms: 30")] for _ in range(8)]
    failing.answers += [[0.05, answer(200, PREDICTION)] for _ in range(8)]
    with Client(failing.url) as client:
        threads = [threading.Thread(target=client.predict, args=("m",), kwargs={"texts": [str(i)]}) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_body: dict[bytes, list[int]] = {}
    for number, request in failing.requests:
        by_body.setdefault(request.partition(b"\r\n\r\n")[2], []).append(number)
    assert sum(map(len, by_body.values())) == 16
    # A thread that starts when another has ended may take over its connection, but no call changes its own.
    assert all(len(set(numbers)) == 1 for numbers in by_body.values())


def test_a_broken_connection_is_replaced(failing: FailingServer) -> None:
    half = answer(200, PREDICTION)[:-9]
    failing.answers = [[b""], [half, b""], [answer(200, PREDICTION)]]
    with Client(failing.url) as client:
        assert client.predict("m", texts=["a"]).predictions == [1]
    assert [number for number, _ in failing.requests] == [0, 1, 2]


def test_a_key_and_the_time_left_are_sent(failing: FailingServer) -> None:
    failing.answers = [[0.2, answer(503, b"{}", "retry-after-ms: 0")], [answer(200, PREDICTION)]]
    with Client(failing.url, api_key="secret", timeout_s=5) as client:
        client.predict("m", texts=["a"])
    heads = [request.partition(b"\r\n\r\n")[0].lower() for _, request in failing.requests]
    assert all(b"authorization: bearer secret" in head for head in heads)
    left = [int(head.partition(b"x-request-timeout-ms: ")[2].split()[0]) for head in heads]
    assert 4500 < left[1] <= left[0] - 200


@pytest.mark.parametrize(
    "parts",
    [
        [30.0],
        [answer(200, PREDICTION)[:-9], 30.0],
        [answer(200, b"x" * 100)[:-100], *[b"x", 0.1] * 100],
    ],
    ids=["no answer", "half an answer", "a slow answer"],
)
def test_the_deadline_bounds_the_whole_call(parts: list[Any], failing: FailingServer) -> None:
    failing.answers = [parts]
    begin = time.monotonic()
    with Client(failing.url) as client, pytest.raises(DeadlineError):
        client.predict("m", texts=["a"], timeout_s=0.4)
    assert time.monotonic() - begin < 1.5


def test_a_slow_stream_ends_at_the_deadline_and_a_broken_one_is_told(failing: FailingServer) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"index": 0, "text": "a"}\n\n'
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    failing.answers = [[head, *[chunk, 0.1] * 100], [head, chunk, b""], [head, chunk, b"0\r\n\r\n"]]
    with Client(failing.url) as client:
        events = client.stream("m", "a", timeout_s=0.5)
        assert next(events) == TextEvent(index=0, text="a")
        with pytest.raises(DeadlineError):
            list(events)
        for _ in range(2):
            events = client.stream("m", "a")
            assert next(events) == TextEvent(index=0, text="a")
            with pytest.raises(ConnectionFailedError):
                list(events)


def test_a_service_that_stays_overloaded_is_told(failing: FailingServer) -> None:
    failing.answers = [[answer(503, b"{}", "retry-after-ms: 5000")]]
    begin = time.monotonic()
    with Client(failing.url) as client, pytest.raises(UnavailableError) as caught:
        client.predict("m", texts=["a"], timeout_s=1)
    assert caught.value.retry_after_s == 5
    assert time.monotonic() - begin < 0.9


def test_a_restart_of_the_service_is_outlasted(served_bundles: Path, tmp_path: Path) -> None:
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(tmp_path), EKIBEN_DRAIN_S="0")
    port, results, errors = free_port(), list[Any](), list[Exception]()

    def call() -> None:
        try:
            while not is_restarted.is_set():
                results.append(client.classify(NAMES["image-classifier"], images=[IMAGE]))
        except Exception as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    is_restarted, threads = threading.Event(), [threading.Thread(target=call) for _ in range(3)]
    with Client(f"http://127.0.0.1:{port}", timeout_s=100, max_retries=1000) as client:
        with start(GRANIAN, env=env, cwd=ROOT, log=tmp_path / "log0", port=port):
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            num_before = len(results)
        with start(GRANIAN, env=env, cwd=ROOT, log=tmp_path / "log1", port=port):
            end = time.monotonic() + 60
            num_between = len(results)
            while len(results) < num_between + 50 and not errors and time.monotonic() < end:
                time.sleep(0.05)
            is_restarted.set()
            for thread in threads:
                thread.join()
    assert errors == []
    assert num_before > 10
    assert len(results) >= num_between + 50
    assert results == [results[0]] * len(results)
