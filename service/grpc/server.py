"""The gRPC port of one worker: the methods of the Open Inference Protocol and gRPC's health service.

Invariant: a call ends with its answer, or with the status of its error. It ends at its deadline, and what it computes
ends with its cancellation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from service.engine.context import RequestContext
from service.errors import EkibenError, Slug, shutting_down
from service.grpc.messages import parse_message, write_message
from service.grpc.methods import METHODS, Method, is_ready
from service.http.identity.request_id import identify
from service.http.route import Scope, ServiceState
from service.http.wire.errors import STATUS
from service.http.wire.framework_errors import internal_error

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
SERVING, NOT_SERVING = 1, 2
HEALTH_POLL_S = 0.5
STOP_GRACE_S = 0.5  # for calls that arrive while the port closes
MAX_CALLS = 512  # of one worker at the same time; more are refused with RESOURCE_EXHAUSTED
MAX_DETAIL_CHARS = 1000
MAX_DEADLINE_S = 86_400.0  # a later one counts as none
Code = grpc.StatusCode
CODES: dict[Slug, Any] = {
    "malformed-json": Code.INVALID_ARGUMENT,
    "malformed-message": Code.INVALID_ARGUMENT,
    "unsupported-media-type": Code.INVALID_ARGUMENT,
    "body-too-large": Code.RESOURCE_EXHAUSTED,
    "head-too-large": Code.RESOURCE_EXHAUSTED,
    "target-too-long": Code.RESOURCE_EXHAUSTED,
    "invalid-request": Code.INVALID_ARGUMENT,
    "unknown-model": Code.NOT_FOUND,
    "unknown-route": Code.UNIMPLEMENTED,
    "method-not-allowed": Code.UNIMPLEMENTED,
    "unauthorized": Code.UNAUTHENTICATED,
    "forbidden": Code.PERMISSION_DENIED,
    "misdirected": Code.INVALID_ARGUMENT,
    "rate-limited": Code.RESOURCE_EXHAUSTED,
    "wrong-task": Code.INVALID_ARGUMENT,
    "not-ready": Code.UNAVAILABLE,
    "overloaded": Code.UNAVAILABLE,
    "timeout": Code.DEADLINE_EXCEEDED,
    "not-finite": Code.INTERNAL,
    "internal": Code.INTERNAL,
}
# Takes the values of `authorization` and `x-api-key`, "" where absent, and a scope; raises EkibenError.
Authorize = Callable[[str, str, Scope], object]


class GrpcServer:
    """Runs on the event loop that starts it; workers share the port."""

    def __init__(self, state: ServiceState, *, authorize: Authorize | None = None) -> None:
        self._state = state
        self._authorize = authorize
        self._server: Any = None

    async def start(self, address: str, port: int) -> None:
        """Open the port; raises RuntimeError if another process has it."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", self._state.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        methods = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._answer, name, method))
            for name, method in METHODS.items()
        }
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check_health),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch_health),
        }
        handlers = [
            grpc.method_handlers_generic_handler(name, table) for name, table in ((SERVICE, methods), (HEALTH, health))
        ]
        self._server.add_generic_rpc_handlers(handlers)
        self._server.add_insecure_port(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        await self._server.start()

    async def stop(self) -> None:
        """Close the port, tell clients to call elsewhere, and end the calls that are left."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP_GRACE_S)

    async def _answer(self, name: str, method: Method, content: bytes, call: Any) -> bytes:
        started_at = time.perf_counter()
        state, status = self._state, 499  # the client cancelled the call
        context: RequestContext | None = None
        state.request_metrics.in_flight += 1
        try:
            context = self._open(name, method, call)
            answer = await method.handle(state, parse_message(method.request, content), context)
            status = 200
            return answer
        except EkibenError as error:
            status = int(STATUS[error.slug])
            await _abort(call, error)
        except Exception:  # noqa: BLE001 - logged under the number that the client gets
            status = 500
            await _abort(call, _internal(name))
        finally:
            state.request_metrics.in_flight -= 1
            if context is not None:
                context.permit.release()
            state.request_metrics.record(f"/{SERVICE}/{name}", status, time.perf_counter() - started_at)
        raise AssertionError("an aborted call raises")

    def _open(self, name: str, method: Method, call: Any) -> RequestContext:
        """Check the key of a call, and make its context; its deadline is that of the call. Raises EkibenError."""
        if self._authorize is not None and method.scope is not None:
            metadata = {key: value for key, value in call.invocation_metadata() or () if isinstance(value, str)}
            self._authorize(metadata.get("authorization", ""), metadata.get("x-api-key", ""), method.scope)
        if method.is_work and self._state.draining:
            raise shutting_down()
        remaining_s = call.time_remaining()
        runner = self._state.runner
        context = runner.new_context(
            timeout_s=remaining_s if remaining_s is not None and remaining_s < MAX_DEADLINE_S else None,
            client=call.peer(),
            route=f"/{SERVICE}/{name}",
        )
        if method.is_work and runner.admission.expects_retries:
            context.permit = runner.admission.try_admit(context)
        return context

    async def _check_health(self, content: bytes, call: Any) -> bytes:
        try:
            self._check_service(content)
        except EkibenError as error:
            await _abort(call, error)
        return self._health()

    async def _watch_health(self, content: bytes, call: Any) -> AsyncIterator[bytes]:
        try:
            self._check_service(content)
        except EkibenError as error:
            await _abort(call, error)
        last = None
        while True:
            if (health := self._health()) != last:
                yield health
            last = health
            await asyncio.sleep(HEALTH_POLL_S)

    def _check_service(self, content: bytes) -> None:
        service = parse_message("HealthCheckRequest", content).service
        if service not in {"", SERVICE}:
            raise EkibenError("unknown-model", f"no service {service[:100]!r}; there is {SERVICE}")

    def _health(self) -> bytes:
        return write_message("HealthCheckResponse", {"status": SERVING if is_ready(self._state) else NOT_SERVING})


async def _abort(call: Any, error: EkibenError) -> None:
    """End a call with the status of the error; the trailing metadata has its code, and when to try again."""
    metadata: list[tuple[str, str]] = [("ekiben-code", error.slug)]
    if error.retry_after_s is not None:
        metadata.append(("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1e3))))
    detail = error.detail.encode("utf-8", "backslashreplace").decode()[:MAX_DETAIL_CHARS]
    await call.abort(CODES[error.slug], detail, tuple(metadata))


def _internal(name: str) -> EkibenError:
    return internal_error("gRPC", f"/{SERVICE}/{name}", identify("", "")[0])
