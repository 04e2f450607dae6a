"""The gRPC port of one worker: the methods of the Open Inference Protocol and gRPC's health service.

Invariant: a call ends with its answer, or with the status of its error. It ends at its deadline, and what it computes
ends with its cancellation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from service.engine.context import UNRESERVED, RequestContext
from service.errors import EkibenError, Slug, forget_traceback, shutting_down
from service.grpc.messages import parse_message, write_message
from service.grpc.methods import METHODS, Method, is_ready
from service.grpc.tensors import read_answer
from service.http.access.policy import OPEN, AccessPolicy
from service.http.identity.request_id import identify
from service.http.rollout.traffic import Inference, Rollout
from service.http.route import ServiceState
from service.http.wire.errors import STATUS
from service.http.wire.framework_errors import internal_error
from service.http.wire.oip_request import ANY_VERSION
from service.tls_files import TlsFiles

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


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a key of the right scope before their message is read."""

    def __init__(self, state: ServiceState, access: AccessPolicy) -> None:
        self._state = state
        self._access = access

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        method = METHODS.get(details.method.removeprefix(f"/{SERVICE}/"))
        if method is not None and method.scope is not None:
            try:
                self._access.check_key(*_key_of(details.invocation_metadata), method.scope)
            except EkibenError as error:
                self._state.request_metrics.record(details.method, int(STATUS[error.slug]), 0.0)
                # A handler of streams: one of single messages would wait for the message.
                return grpc.stream_unary_rpc_method_handler(partial(_fail_unread, error))
        return await continuation(details)


class GrpcServer:
    """Runs on the event loop that starts it; workers share the port."""

    def __init__(self, state: ServiceState, *, access: AccessPolicy = OPEN, rollout: Rollout | None = None) -> None:
        """`rollout` answers inference requests while there are candidates."""
        self._state = state
        self._access = access
        self._rollout = rollout
        self._server: Any = None

    async def start(self, address: str, port: int, tls: TlsFiles | None = None) -> None:
        """Open the port; raises RuntimeError if another process has it."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", self._state.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
            interceptors=[KeyInterceptor(self._state, self._access)],
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
        listening = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if tls is None:
            self._server.add_insecure_port(listening)
        else:
            self._server.add_secure_port(listening, _credentials(tls))
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
        key_permit = UNRESERVED
        state.request_metrics.in_flight += 1
        try:
            if method.scope is not None:
                identity = self._access.check_key(*_key_of(call.invocation_metadata()), method.scope)
                key_permit = self._access.admit(identity, infers=method.is_work)
            context = self._open(name, method, call)
            message = parse_message(method.request, content)
            if method.scope == "infer" and self._rollout is not None and state.repository.has_candidates:
                answer = await self._rollout.answer(state, _inference(name, method, message), context)
            else:
                answer = await method.handle(state, message, context)
            status = 200
            return answer
        except EkibenError as error:
            status = int(STATUS[error.slug])
            forget_traceback(error)
            return _fail(call, error)
        except Exception as error:  # noqa: BLE001 - logged under the number that the client gets
            status = 500
            answered = _internal(name)
            forget_traceback(error)
            return _fail(call, answered)
        finally:
            state.request_metrics.in_flight -= 1
            key_permit.release()
            if context is not None:
                context.permit.release()
            model, version = ("", "") if context is None else (context.model, context.version)
            state.request_metrics.record(f"/{SERVICE}/{name}", status, time.perf_counter() - started_at, model, version)

    def _open(self, name: str, method: Method, call: Any) -> RequestContext:
        """Make the context of a call; its deadline is that of the call. Raises EkibenError."""
        if method.is_work and self._state.closing:
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
            return _fail(call, error)
        return self._health()

    async def _watch_health(self, content: bytes, call: Any) -> AsyncIterator[bytes]:
        try:
            self._check_service(content)
        except EkibenError as error:
            _fail(call, error)
            return
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


def _inference(name: str, method: Method, message: Any) -> Inference[bytes]:
    return Inference(
        route=f"/{SERVICE}/{name}",
        request_id=identify(message.id, "")[0],
        names_version=message.model_version not in {"", ANY_VERSION},
        handle=lambda state, context: method.handle(state, message, context),
        content=read_answer,
    )


def _key_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, str]:
    """Return the values of `authorization` and `x-api-key`, "" where absent; of several the first counts."""
    values = {key: value for key, value in reversed([*(metadata or ())]) if isinstance(value, str)}
    return values.get("authorization", ""), values.get("x-api-key", "")


async def _fail_unread(error: EkibenError, _: Any, call: Any) -> bytes:
    return _fail(call, error)


def _credentials(tls: TlsFiles) -> Any:
    authorities = None if tls.client_ca is None else tls.client_ca.read_bytes()
    pairs = [(tls.key.read_bytes(), tls.cert.read_bytes())]
    return grpc.ssl_server_credentials(pairs, authorities, require_client_auth=authorities is not None)


def _fail(call: Any, error: EkibenError) -> bytes:
    """Give a call the status of the error, and return its empty answer.

    The trailing metadata has the code of the error, and when to try again. `call.abort` would raise an error that the
    call holds, whose frames hold the call and its message until the garbage collector looks at them.
    """
    metadata: list[tuple[str, str]] = [("ekiben-code", error.slug)]
    if error.retry_after_s is not None:
        metadata.append(("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1e3))))
    detail = error.detail.encode("utf-8", "backslashreplace").decode()[:MAX_DETAIL_CHARS]
    call.set_code(CODES[error.slug])
    call.set_details(detail)
    call.set_trailing_metadata(tuple(metadata))
    return b""


def _internal(name: str) -> EkibenError:
    return internal_error("gRPC", f"/{SERVICE}/{name}", identify("", "")[0])
