"""The client for asyncio. It may be shared by the tasks of one event loop.

Invariant: a call uses one connection for all its attempts, because the service knows by the connection who returns at
the time that it has promised.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Self, TypeVar, Unpack

import httpx

from ekiben.client import calls
from ekiben.client.attempts import Deadline, HttpAnswer, Outcome, Pause, ServiceCall, attempts, failure
from ekiben.client.errors import ConnectionFailedError, DeadlineError, ServiceError, UnavailableError
from ekiben.client.events import EventReader
from ekiben.client.settings import Settings, items_of
from ekiben.client.values import (
    Array,
    Completions,
    Images,
    Items,
    Json,
    Latents,
    ManyItems,
    Predictions,
    Sampling,
    StreamEnd,
    Tensors,
    TextEvent,
)

T = TypeVar("T")


class AsyncClient:
    """Calls a service at `url`; `timeout_s` of the client or of a call bounds the call with all its retries."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        max_retries: int = 10,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._settings = Settings(
            url=url.rstrip("/"), api_key=api_key, timeout_s=timeout_s, max_retries=max_retries, verify=verify
        )
        self._verify = self._settings.ssl_context()
        self._idle: deque[httpx.AsyncHTTPTransport] = deque()
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._all:
            await transport.aclose()

    async def predict(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]) -> Predictions:
        """Send items to any model but a language model; raises EkibenClientError, as all calls do."""
        return await self._run(calls.prediction("/predict", model, fields), timeout_s)

    async def classify(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]) -> Predictions:
        return await self._run(calls.prediction("/classify", model, fields), timeout_s)

    async def sequence_predict(
        self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]
    ) -> Predictions:
        return await self._run(calls.prediction("/sequence-predict", model, fields), timeout_s)

    async def generate(
        self, model: str, prompt: str | Sequence[str], *, timeout_s: float | None = None, **fields: Unpack[Sampling]
    ) -> Completions:
        """Continue each prompt."""
        return await self._run(calls.text(model, prompt, fields), timeout_s)

    async def generate_images(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Latents]) -> Images:
        return await self._run(calls.pictures(model, fields), timeout_s)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout_s: float | None = None,
    ) -> Tensors:
        """Send tensors as they are, over the Open Inference Protocol; `outputs` are all by default."""
        return await self._run(calls.inference(model, inputs, outputs, version), timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> list[Json]:
        return await self._run(calls.models(), timeout_s)

    async def model(self, name: str, *, timeout_s: float | None = None) -> Json:
        return await self._run(calls.model(name), timeout_s)

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Return whether the service is ready; one that cannot be reached is not."""
        try:
            return await self._run(calls.readiness(), timeout_s)
        except (UnavailableError, ConnectionFailedError, DeadlineError):
            return False

    async def stream(
        self, model: str, prompt: str | Sequence[str], *, timeout_s: float | None = None, **fields: Unpack[Sampling]
    ) -> AsyncGenerator[TextEvent | StreamEnd, None]:
        """Yield the completions as they grow and a StreamEnd; closing the generator ends the generation."""
        call = calls.text(model, prompt, fields, calls.STREAM_PATH)
        deadline = self._settings.deadline(timeout_s)
        opened: list[httpx.Response] = []

        async def send(connection: httpx.AsyncHTTPTransport, request: httpx.Request) -> HttpAnswer:
            response = await connection.handle_async_request(request)
            if response.status_code >= 300:
                return await _read(response, deadline)
            opened.append(response)
            return HttpAnswer(status=response.status_code, headers=response.headers, body=b"")

        with self._connection() as connection:
            try:
                reply = await self._drive(call, deadline, connection, send)
                events = EventReader(reply.headers.get("x-request-id"))
                async for content in opened[0].aiter_raw():
                    for event in events.read(content):
                        yield event
                    events.check(deadline)
                events.check_end()
            except httpx.TransportError as error:
                raise failure(error) from error
            finally:
                for response in opened:
                    await response.aclose()

    async def predict_each(
        self, model: str, *, concurrency: int = 4, timeout_s: float | None = None, **fields: Unpack[ManyItems]
    ) -> AsyncGenerator[Json, None]:
        """Yield the prediction of each item of an iterable of any length, in order.

        Items are read as they are needed: at most `concurrency` requests of `limits.max_items` are under way.
        `timeout_s` bounds each request. A ServiceError points at the item by its number in the iterable.
        """
        field, items, options = items_of(fields)
        size, source, first = calls.max_items(await self.model(model, timeout_s=timeout_s)), iter(items), 0
        pending: deque[tuple[int, asyncio.Task[Predictions]]] = deque()
        try:
            while True:
                while len(pending) < concurrency and (chunk := list(islice(source, size))):
                    call = calls.prediction("/predict", model, {**options, field: chunk})
                    pending.append((first, asyncio.create_task(self._run(call, timeout_s))))
                    first += len(chunk)
                if not pending:
                    return
                begin, task = pending[0]
                try:
                    predictions = (await task).predictions
                except ServiceError as error:
                    raise error.shifted(begin) from error
                pending.popleft()
                for prediction in predictions:
                    yield prediction
        finally:
            for _, task in pending:
                task.cancel()
            await asyncio.gather(*(task for _, task in pending), return_exceptions=True)

    async def _run(self, call: ServiceCall[T], timeout_s: float | None) -> T:
        deadline = self._settings.deadline(timeout_s)

        async def send(connection: httpx.AsyncHTTPTransport, request: httpx.Request) -> HttpAnswer:
            return await _read(await connection.handle_async_request(request), deadline)

        with self._connection() as connection:
            reply = await self._drive(call, deadline, connection, send)
        return calls.parsed(call, reply)

    async def _drive(
        self,
        call: ServiceCall[T],
        deadline: Deadline,
        connection: httpx.AsyncHTTPTransport,
        send: Callable[[httpx.AsyncHTTPTransport, httpx.Request], Awaitable[HttpAnswer]],
    ) -> HttpAnswer:
        """Do what `attempts` says, and return its reply."""
        steps = attempts(call, deadline, self._settings.max_retries)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as ended:
                reply: HttpAnswer = ended.value
                return reply
            outcome = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                outcome = await send(connection, self._settings.request(call, step.headers, deadline))
            except httpx.TransportError as error:
                outcome = error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[httpx.AsyncHTTPTransport]:
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = httpx.AsyncHTTPTransport(verify=self._verify, limits=httpx.Limits(max_connections=1))
            self._all.append(transport)
        try:
            yield transport
        finally:
            self._idle.append(transport)


async def _read(response: httpx.Response, deadline: Deadline) -> HttpAnswer:
    parts = []
    try:
        async for part in response.aiter_raw():
            parts.append(part)
            deadline.check()
    finally:
        await response.aclose()
    return HttpAnswer(status=response.status_code, headers=response.headers, body=b"".join(parts))
