"""The client that blocks: one thread waits for each call. It may be shared by threads.

Invariant: a call uses one connection for all its attempts, because the service knows by the connection who returns at
the time that it has promised.
"""

import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


class Client:
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
        self._idle: deque[httpx.HTTPTransport] = deque()
        self._all: list[httpx.HTTPTransport] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for transport in self._all:
            transport.close()

    def predict(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]) -> Predictions:
        """Send items to any model but a language model; raises EkibenClientError, as all calls do."""
        return self._run(calls.prediction("/predict", model, fields), timeout_s)

    def classify(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]) -> Predictions:
        return self._run(calls.prediction("/classify", model, fields), timeout_s)

    def sequence_predict(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Items]) -> Predictions:
        return self._run(calls.prediction("/sequence-predict", model, fields), timeout_s)

    def generate(
        self, model: str, prompt: str | Sequence[str], *, timeout_s: float | None = None, **fields: Unpack[Sampling]
    ) -> Completions:
        """Continue each prompt."""
        return self._run(calls.text(model, prompt, fields), timeout_s)

    def generate_images(self, model: str, *, timeout_s: float | None = None, **fields: Unpack[Latents]) -> Images:
        return self._run(calls.pictures(model, fields), timeout_s)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout_s: float | None = None,
    ) -> Tensors:
        """Send tensors as they are, over the Open Inference Protocol; `outputs` are all by default."""
        return self._run(calls.inference(model, inputs, outputs, version), timeout_s)

    def models(self, *, timeout_s: float | None = None) -> list[Json]:
        return self._run(calls.models(), timeout_s)

    def model(self, name: str, *, timeout_s: float | None = None) -> Json:
        return self._run(calls.model(name), timeout_s)

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Return whether the service is ready; one that cannot be reached is not."""
        try:
            return self._run(calls.readiness(), timeout_s)
        except (UnavailableError, ConnectionFailedError, DeadlineError):
            return False

    def stream(
        self, model: str, prompt: str | Sequence[str], *, timeout_s: float | None = None, **fields: Unpack[Sampling]
    ) -> Generator[TextEvent | StreamEnd, None, None]:
        """Yield the completions as they grow and a StreamEnd; closing the generator ends the generation."""
        call = calls.text(model, prompt, fields, calls.STREAM_PATH)
        deadline = self._settings.deadline(timeout_s)
        opened: list[httpx.Response] = []

        def send(connection: httpx.HTTPTransport, request: httpx.Request) -> HttpAnswer:
            response = connection.handle_request(request)
            if response.status_code >= 300:
                return _read(response, deadline)
            opened.append(response)
            return HttpAnswer(status=response.status_code, headers=response.headers, body=b"")

        with self._connection() as connection:
            try:
                reply = self._drive(call, deadline, connection, send)
                events = EventReader(reply.headers.get("x-request-id"))
                for content in opened[0].iter_raw():
                    yield from events.read(content)
                    events.check(deadline)
                events.check_end()
            except httpx.TransportError as error:
                raise failure(error) from error
            finally:
                for response in opened:
                    response.close()

    def predict_each(
        self, model: str, *, concurrency: int = 4, timeout_s: float | None = None, **fields: Unpack[ManyItems]
    ) -> Generator[Json, None, None]:
        """Yield the prediction of each item of an iterable of any length, in order.

        Items are read as they are needed: at most `concurrency` requests of `limits.max_items` are under way.
        `timeout_s` bounds each request. A ServiceError points at the item by its number in the iterable.
        """
        field, items, options = items_of(fields)
        size, source, first = calls.max_items(self.model(model, timeout_s=timeout_s)), iter(items), 0
        pending: deque[tuple[int, Future[Predictions]]] = deque()
        with ThreadPoolExecutor(concurrency) as threads:
            try:
                while True:
                    while len(pending) < concurrency and (chunk := list(islice(source, size))):
                        call = calls.prediction("/predict", model, {**options, field: chunk})
                        pending.append((first, threads.submit(self._run, call, timeout_s)))
                        first += len(chunk)
                    if not pending:
                        return
                    begin, future = pending.popleft()
                    try:
                        predictions = future.result().predictions
                    except ServiceError as error:
                        raise error.shifted(begin) from error
                    yield from predictions
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: ServiceCall[T], timeout_s: float | None) -> T:
        deadline = self._settings.deadline(timeout_s)

        def send(connection: httpx.HTTPTransport, request: httpx.Request) -> HttpAnswer:
            return _read(connection.handle_request(request), deadline)

        with self._connection() as connection:
            reply = self._drive(call, deadline, connection, send)
        return calls.parsed(call, reply)

    def _drive(
        self,
        call: ServiceCall[T],
        deadline: Deadline,
        connection: httpx.HTTPTransport,
        send: Callable[[httpx.HTTPTransport, httpx.Request], HttpAnswer],
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
                time.sleep(step.seconds)
                continue
            try:
                outcome = send(connection, self._settings.request(call, step.headers, deadline))
            except httpx.TransportError as error:
                outcome = error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[httpx.HTTPTransport]:
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = httpx.HTTPTransport(verify=self._verify, limits=httpx.Limits(max_connections=1))
            self._all.append(transport)
        try:
            yield transport
        finally:
            self._idle.append(transport)


def _read(response: httpx.Response, deadline: Deadline) -> HttpAnswer:
    parts = []
    try:
        for part in response.iter_raw():
            parts.append(part)
            deadline.check()
    finally:
        response.close()
    return HttpAnswer(status=response.status_code, headers=response.headers, body=b"".join(parts))
