"""The service's own routes, answered in front of the framework: bytes in, a task's handler, bytes out.

Invariant: a request is answered exactly once, with the task's answer or with a problem document; no exception and no
body of the framework's own making reaches a client. Routes that are not ours go through to the framework untouched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from service.bundle import Task
from service.engine.repository import Repository
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.asgi import App, ClientGoneError, Receive, Scope, Send, header, media_type, read_body, respond
from service.http.foreign import failure, translate
from service.http.json_body import read_json
from service.http.problems import PROBLEM_JSON, problem, status_of
from service.tasks import TASKS
from service.tasks.body import Body, parse
from service.tasks.classify import classify_upload
from service.tasks.generate import GenerateRequest, generate_grid
from service.tasks.limits import ENDPOINTS, find
from service.tasks.ranking import TopK

JSON, PNG = b"application/json", b"image/png"
PICTURES = {"image/png", "image/jpeg"}
Reply = tuple[bytes, bytes]  # content type, body


class Host(Protocol):
    """Who serves: looked up for each request, since the framework makes it after the routes."""

    repository: Repository
    runner: Runner
    max_body_bytes: int


class Upload(Body):
    """The query of a request whose body is the picture itself."""

    top_k: TopK = 3


class NativeRoutes:
    """ASGI middleware; `host` gives the running service. What is not answered after `timeout_s` is given up."""

    def __init__(self, app: App, *, host: Callable[[], Host], timeout_s: float) -> None:
        self._app = translate(app)
        self._host = host
        self._timeout_s = timeout_s
        self._posts: Mapping[str, Task] = {path: task for task, path in ENDPOINTS.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._route(scope) if scope["type"] == "http" else None
        if route is None:
            return await self._app(scope, receive, send)
        methods, answer = route
        try:
            if scope["method"] not in methods:
                raise EkibenError("method-not-allowed", f"expected {' or '.join(methods)}, got {scope['method']}")
            async with asyncio.timeout(self._timeout_s):
                content_type, body = await answer(scope, receive)
            status = 200
        except ClientGoneError:
            return None
        except Exception as caught:  # noqa: BLE001 - what nobody foresaw is logged and answered with its number
            error = self._in_words(caught, scope)
            status, content_type, body = status_of(error), PROBLEM_JSON, problem(error)
        allow = [(b"allow", ", ".join(methods).encode())] if status == HTTPStatus.METHOD_NOT_ALLOWED else []
        return await respond(send, status, content_type, b"" if scope["method"] == "HEAD" else body, allow)

    def _route(self, scope: Scope) -> tuple[tuple[str, ...], Callable[[Scope, Receive], Awaitable[Reply]]] | None:
        path: str = scope["path"]
        if path in self._posts:
            return ("POST",), partial(self._post, self._posts[path])
        if path == "/models" or path.startswith("/models/"):
            return ("GET", "HEAD"), self._models
        if path == "/readyz":
            return ("GET", "HEAD"), self._ready
        return None

    def _in_words(self, caught: Exception, scope: Scope) -> EkibenError:
        match caught:
            case EkibenError():
                return caught
            case TimeoutError():
                return EkibenError("timeout", f"no answer within {self._timeout_s:g} s")
            case _:
                return failure(scope)

    async def _post(self, task: Task, scope: Scope, receive: Receive) -> Reply:
        host = self._host()
        kind = media_type(scope)
        if kind in PICTURES and task == "classify":
            return await _classify_upload(host, scope, receive)
        if kind != "application/json":
            accepted = "application/json" + (", image/png or image/jpeg" if task == "classify" else "")
            raise EkibenError("unsupported-media-type", f"expected content type {accepted}, got {kind or 'none'}")
        document = read_json(await read_body(scope, receive, host.max_body_bytes))
        request = parse(TASKS[task].request, document)
        model = find(host.repository, request.model, task)
        if isinstance(request, GenerateRequest) and "image/png" in header(scope, b"accept"):
            return PNG, await generate_grid(model, host.runner, request)
        answer = await TASKS[task].handle(model, host.runner, request)
        return JSON, answer.model_dump_json(exclude_none=True).encode()

    async def _models(self, scope: Scope, _: Receive) -> Reply:
        repository = self._host().repository
        name = scope["path"].removeprefix("/models").strip("/")
        return JSON, orjson.dumps(repository.describe_model(name) if name else {"models": repository.describe()})

    async def _ready(self, _: Scope, __: Receive) -> Reply:
        reason = self._host().repository.not_ready_because()
        if reason is not None:
            raise EkibenError("not-ready", reason)
        return JSON, b'{"ready":true}'


async def _classify_upload(host: Host, scope: Scope, receive: Receive) -> Reply:
    query: dict[str, Any] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    if query.get("top_k", "").isdecimal():
        query["top_k"] = int(query["top_k"][:9])
    upload = parse(Upload, query)
    model = find(host.repository, upload.model, "classify")
    content = await read_body(scope, receive, host.max_body_bytes)
    answer = await classify_upload(model, host.runner, content, upload.top_k)
    return JSON, answer.model_dump_json(exclude_none=True).encode()
