"""Refuses requests, or asks for their bodies, on granian's own thread, before the event loop knows of them.

This is the only module that replaces a private function of granian, whose scheduler of requests has no other place to
run code at that moment. tests/service/http/granian/test_pre_admission.py fails if granian changes the function.
"""

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import Any

import granian._futures

from service.errors import EkibenError
from service.http.granian.rsgi import RsgiRequest, answer, send_response
from service.http.route import InferenceRoute
from service.http.router import Router, find_route

log = logging.getLogger(__name__)


def install(router: Router) -> None:
    """Have granian call a hook for each request, in this process."""
    granian._futures._cbsched_aioschedule = partial(PreAdmissionHook, router)


class PreAdmissionHook:
    """Called on granian's thread: refuses an inference request or asks for its body; the event loop does the rest."""

    def __init__(self, router: Router, loop: asyncio.AbstractEventLoop, context: Context, _: Any) -> None:
        self._router = router
        self._loop = loop
        self._context = context

    def __call__(self, watcher: Any) -> None:
        request = RsgiRequest(watcher.scope, watcher.proto)
        try:
            route = find_route(request.path)
            refusal = self._router.check_access(route, request)
            if refusal is not None:
                send_response(watcher.proto, refusal, request.reply_headers)
                return
            if isinstance(route, InferenceRoute) and request.method in route.methods:
                state = self._router.state()
                refusal = self._router.refuse_early(state, route, request)
                if refusal is not None:
                    send_response(watcher.proto, refusal, request.reply_headers)
                    return
                request.fetch(state.max_body_bytes, state.bodies.reserve)
        except EkibenError:
            pass  # the router raises it again, and answers it
        except Exception:  # which would end granian's thread
            log.exception("the check before reading a request failed; the event loop handles the request")
        self._loop.call_soon_threadsafe(self._start, watcher, request, context=self._context)

    def _start(self, watcher: Any, request: RsgiRequest) -> None:
        watcher.taskref(self._loop.create_task(_answer_watched(self._router, watcher, request)))


async def _answer_watched(router: Router, watcher: Any, request: RsgiRequest) -> None:
    """Answer the request, and tell granian how that ended."""
    try:
        await answer(router, watcher.scope, watcher.proto, request)
    except BaseException as error:  # noqa: BLE001 - as granian does
        watcher.err(error)
        return
    watcher.done()
