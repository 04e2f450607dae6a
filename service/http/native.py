"""The three endpoints and the list of models: bytes in, a task's handler, bytes out."""

from typing import Any
from urllib.parse import parse_qsl

import orjson

from service.bundle import Task
from service.errors import EkibenError
from service.http.deadline import at_last
from service.http.exchange import JSON, Reply, Request, media_type, whole_number
from service.http.json_body import read_json
from service.http.route import Host, Page, Work
from service.tasks import TASKS
from service.tasks.body import Body, parse
from service.tasks.classify import classify_upload
from service.tasks.generate import GenerateRequest, generate_grid
from service.tasks.limits import ENDPOINTS, find
from service.tasks.ranking import TopK

PNG = "image/png"
PICTURES = {"image/png", "image/jpeg"}


class Upload(Body):
    """The query of a request whose body is the picture itself."""

    top_k: TopK = 3


def _endpoint(task: Task) -> Work:
    async def answer(host: Host, request: Request, body: bytes) -> Reply:
        at_last(host.runner.limits.timeout_s, request.came)
        kind = media_type(request)
        if kind in PICTURES and task == "classify":
            return await _classify_upload(host, request, body)
        if kind != "application/json":
            accepted = "application/json" + (", image/png or image/jpeg" if task == "classify" else "")
            raise EkibenError("unsupported-media-type", f"expected content type {accepted}, got {kind or 'none'}")
        asked = parse(TASKS[task].request, read_json(body))
        model = find(host.repository, asked.model, task)
        if isinstance(asked, GenerateRequest) and "image/png" in request.header("accept"):
            png, seed = await generate_grid(model, host.runner, asked)
            return Reply(PNG, png, [("x-seed", str(seed))])
        return Reply(JSON, orjson.dumps(await TASKS[task].handle(model, host.runner, asked)))

    return Work(name=ENDPOINTS[task], answer=answer)


async def _classify_upload(host: Host, request: Request, content: bytes) -> Reply:
    query: dict[str, Any] = dict(parse_qsl(request.query, keep_blank_values=True))
    top_k = whole_number(query.get("top_k", ""))
    if top_k is not None:
        query["top_k"] = top_k
    upload = parse(Upload, query)
    model = find(host.repository, upload.model, "classify")
    return Reply(JSON, orjson.dumps(await classify_upload(model, host.runner, content, upload.top_k)))


async def _models(host: Host, _: Request) -> Reply:
    return Reply(JSON, orjson.dumps({"models": host.repository.list_models()}))


async def _model(host: Host, request: Request) -> Reply:
    name = request.path.removeprefix("/models/").rstrip("/")
    return Reply(JSON, orjson.dumps(host.repository.describe_model(name)))


ROUTES = (
    *(_endpoint(task) for task in ENDPOINTS),
    Page(name="/models", answer=_models),
    Page(name="/models/", answer=_models),
)
MODEL = Page(name="/models/{model}", answer=_model)


def below(path: str) -> Page | None:
    """The route of a path that holds a name."""
    return MODEL if path.startswith("/models/") else None
