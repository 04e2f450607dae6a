"""The framework behind the routes, which answers one path for its clients, as an ASGI application.

Invariant: its requests are identified, counted and observed as ours.
"""

import time
from collections.abc import Callable

from service.http.route import ServiceState
from service.http.wire.asgi import App, AsgiRequest, Message, Receive, Scope, Send
from service.http.wire.framework_errors import REQUEST_ID, ErrorTranslationMiddleware
from service.http.wire.messages import HttpRequest

FRAMEWORK_PATH = "/schema.json"
REQUEST = "ekiben.request"  # in the scope: the request as the router has seen it


class FrameworkApp:
    def __init__(self, app: App, state: Callable[[], ServiceState]) -> None:
        self._app = ErrorTranslationMiddleware(app)
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request: HttpRequest = scope.get(REQUEST) or AsgiRequest(scope, receive, send)
        started_at = time.perf_counter()
        status, num_sent = 499, 0
        is_sent = False

        async def send_identified(message: Message) -> None:
            nonlocal status, num_sent, is_sent
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(name.encode(), value.encode("latin-1")) for name, value in request.reply_headers]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            else:
                num_sent += len(message.get("body", b""))
                is_sent = not message.get("more_body", False)
            await send(message)

        metrics = self._state().request_metrics
        metrics.begin(request, FRAMEWORK_PATH)
        try:
            await self._app({**scope, REQUEST_ID: request.id}, receive, send_identified)
        finally:
            if request.observation is not None:
                request.observation.num_sent = num_sent
            metrics.end(request, FRAMEWORK_PATH, status if is_sent else 499, time.perf_counter() - started_at)
        return None
