"""The client for asyncio gives what the blocking one gives, on both hosts, and against a server that fails."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from ekiben.client import (
    AsyncClient,
    Client,
    ConnectionFailedError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    StreamEnd,
    TextEvent,
)
from tests.ekiben.client.conftest import FailingServer, answer
from tests.service.bundles import FAMILIES, NAMES, example_inputs
from tests.service.requests import REQUEST_FIELDS

IMAGE = [[7] * 4] * 4
PREDICTION = b'{"model": "m", "version": "v", "predictions": [1]}'
PREDICTED = ("image-classifier", "series-classifier", "series-tagger", "text-classifier")


def run(url: str, act: Callable[[AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(url, **options) as client:
            return await act(client)

    return asyncio.run(main())


def test_answers_are_those_of_the_blocking_client(url: str) -> None:
    text, images = REQUEST_FIELDS["language-model"], REQUEST_FIELDS["image-generator"]
    sampling = {key: value for key, value in text.items() if key != "prompt"}

    async def act(client: AsyncClient) -> list[Any]:
        name = NAMES["language-model"]
        return [
            *[await client.predict(NAMES[family], **REQUEST_FIELDS[family]) for family in PREDICTED],
            await client.classify(NAMES["image-classifier"], images=[np.array(IMAGE, np.uint8)]),
            await client.sequence_predict(NAMES["text-classifier"], texts=["rice"]),
            await client.generate(name, text["prompt"], **sampling),
            "".join(
                [e.text async for e in client.stream(name, text["prompt"], **sampling) if isinstance(e, TextEvent)]
            ),
            await client.generate_images(NAMES["image-generator"], **images),
            {each["name"] for each in await client.models()},
            (await client.model(name))["version"],
            await client.ready(),
        ]

    with Client(url) as blocking:
        name = NAMES["language-model"]
        completions = blocking.generate(name, text["prompt"], **sampling)
        assert run(url, act) == [
            *[blocking.predict(NAMES[family], **REQUEST_FIELDS[family]) for family in PREDICTED],
            blocking.classify(NAMES["image-classifier"], images=[IMAGE]),
            blocking.sequence_predict(NAMES["text-classifier"], texts=["rice"]),
            completions,
            completions.completions[0].text,
            blocking.generate_images(NAMES["image-generator"], **images),
            {each["name"] for each in blocking.models()},
            blocking.model(name)["version"],
            True,
        ]


def test_tensors_of_every_family(url: str) -> None:
    async def act(client: AsyncClient) -> list[Any]:
        return await asyncio.gather(*(client.infer(NAMES[family], example_inputs(family)) for family in FAMILIES))

    with Client(url) as blocking:
        for family, found in zip(FAMILIES, run(url, act), strict=True):
            expected = blocking.infer(NAMES[family], example_inputs(family)).outputs
            assert {name: value.tobytes() for name, value in found.outputs.items()} == {
                name: value.tobytes() for name, value in expected.items()
            }


def test_errors(url: str) -> None:
    with pytest.raises(NotFoundError):
        run(url, lambda client: client.predict("nobody", texts=["a"]))
    with pytest.raises(InvalidRequestError) as caught:
        run(url, lambda client: client.classify(NAMES["image-classifier"], images=[IMAGE, b"junk"]))
    assert [fault.pointer for fault in caught.value.faults] == ["/images/1"]


def test_many_items_are_sent_in_parts_lazily_and_in_order(url: str) -> None:
    name, num_read = NAMES["text-classifier"], 0

    async def act(client: AsyncClient) -> tuple[int, list[Any], list[Any]]:
        nonlocal num_read
        size = (await client.model(name))["limits"]["max_items"]

        def texts() -> Iterator[str]:
            nonlocal num_read
            for i in range(3 * size + 1):
                num_read += 1
                yield ["the train leaves", "rice"][i % 2]

        async with aclosing(client.predict_each(name, texts=texts(), concurrency=2, top_k=1)) as found:
            first = await anext(found)
            assert num_read <= 2 * size
            rest = [each async for each in found]
        single = await client.predict(name, texts=["the train leaves", "rice"], top_k=1)
        return 3 * size + 1, [first, *rest], single.predictions

    num_items, found, single = run(url, act)
    assert found == [single[i % 2] for i in range(num_items)]


def test_an_error_names_the_item_in_the_whole(url: str) -> None:
    name = NAMES["image-classifier"]

    async def act(client: AsyncClient) -> int:
        size: int = (await client.model(name))["limits"]["max_items"]
        images: Iterator[Any] = itertools.chain([IMAGE] * (size + 2), [[[0]]], itertools.repeat(IMAGE))
        with pytest.raises(InvalidRequestError) as caught:
            async for _ in client.predict_each(name, images=images):
                pass
        assert [fault.pointer for fault in caught.value.faults] == [f"/images/{size + 2}"]
        assert len(asyncio.all_tasks()) == 1
        return size

    assert run(url, act) > 0


def test_a_refusal_is_followed_at_its_time_on_its_connection(failing: FailingServer) -> None:
    failing.answers = [[answer(503, b"{}", "retry-after-ms: 60")] for _ in range(4)]
    failing.answers += [[0.05, answer(200, PREDICTION)] for _ in range(4)]

    async def act(client: AsyncClient) -> None:
        await asyncio.gather(*(client.predict("m", texts=[str(i)]) for i in range(4)))

    run(failing.url, act)
    by_body: dict[bytes, list[int]] = {}
    for number, request in failing.requests:
        by_body.setdefault(request.partition(b"\r\n\r\n")[2], []).append(number)
    assert sorted(by_body.values()) == [[0, 0], [1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize(
    "parts", [[30.0], [answer(200, PREDICTION)[:-9], 30.0], [answer(200, b"x" * 100)[:-100], *[b"x", 0.1] * 100]]
)
def test_the_deadline_bounds_the_whole_call(parts: list[Any], failing: FailingServer) -> None:
    failing.answers = [parts]
    begin = time.monotonic()
    with pytest.raises(DeadlineError):
        run(failing.url, lambda client: client.predict("m", texts=["a"], timeout_s=0.4))
    assert time.monotonic() - begin < 1.5


def test_a_cancelled_call_leaves_a_client_that_works(failing: FailingServer) -> None:
    failing.answers = [[1.0, answer(200, b"of another call")], [answer(200, PREDICTION)]]

    async def act(client: AsyncClient) -> Any:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.predict("m", texts=["a"])
        return await client.predict("m", texts=["a"])

    assert run(failing.url, act).predictions == [1]


def test_a_broken_stream_is_told(failing: FailingServer) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"index": 0, "text": "a"}\n\n'
    failing.answers = [[head, b"%x\r\n%s\r\n" % (len(event), event), b""]]

    async def act(client: AsyncClient) -> None:
        stream: AsyncIterator[TextEvent | StreamEnd] = client.stream("m", "a")
        assert await anext(stream) == TextEvent(index=0, text="a")
        with pytest.raises(ConnectionFailedError):
            await anext(stream)

    run(failing.url, act)
