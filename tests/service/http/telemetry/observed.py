"""Requests as the router tells observers of them."""

import time
from types import SimpleNamespace
from typing import Any

from service.engine.context import RequestContext
from service.http.identity.request_id import identify
from service.http.telemetry.observation import Observation, Outcome
from service.http.wire.messages import JSON, Response

OK = Response(JSON, b'{"predictions":[]}')


def observation(body: bytes = b"", route: str = "/classify", client: str = "10.0.0.1:5", **headers: str) -> Observation:
    """A request whose body has arrived, if there is one."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request: Any = SimpleNamespace(method="POST", path=route, client=client, received_at=time.monotonic())
    request.header = lambda name: names.get(name, "")
    request.context = RequestContext(request.received_at, None, 30.0, "", route)
    request.id, request.trace, request.reply_headers = identify(
        request.header("x-request-id"), request.header("traceparent")
    )
    seen = Observation(request, route)
    if body:
        seen.received(body)
    return seen


def outcome(status: int = 200, response: Response | None = OK, model: str = "m", version: str = "v") -> Outcome:
    return Outcome(status, 0.25, model, version, response)
