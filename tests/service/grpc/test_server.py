"""The gRPC port: real calls, with the bits of the HTTP routes, their errors, deadlines, drain and health."""

import asyncio
import gc
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.errors import EkibenError
from service.grpc import server as server_module
from service.grpc.messages import CLASSES, parse_message, write_message
from service.grpc.methods import Method
from service.grpc.server import CODES, SERVICE, GrpcServer
from service.http.access.policy import access_policy
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.errors import STATUS
from service.settings import Settings
from tests.e2e.serving import ServerProcess, free_port
from tests.service.bundles import FAMILIES, NAMES, example_inputs
from tests.service.hosts import GRANIAN, ask, counted, published_count, running_server, wait_until
from tests.service.key_files import write_keys
from tests.service.test_tls_files import CA, write_tls

Code = grpc.StatusCode
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
CONTENTS = {"UINT8": "uint_contents", "INT64": "int64_contents", "FP32": "fp32_contents"}
MAX_BODY_BYTES = 1 << 16


@pytest.fixture(scope="module")
def ports(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, int]]:
    """A service of two workers, and its gRPC port."""
    port = free_port()
    settings = {"EKIBEN_GRPC_PORT": str(port), "EKIBEN_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    folder = tmp_path_factory.mktemp("grpc")
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, folder, **settings) as host:
        wait_until(lambda: counted(host, "ekiben_ready_workers") == 2)
        yield host, port


@pytest.fixture(scope="module")
def channel(ports: tuple[ServerProcess, int]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
        yield channel


def call(channel: grpc.Channel, name: str, content: bytes, timeout: float | None = 30) -> bytes:
    answer: bytes = channel.unary_unary(f"/{SERVICE}/{name}")(content, timeout=timeout)
    return answer


def infer(channel: grpc.Channel, **fields: Any) -> Any:
    content = call(channel, "ModelInfer", write_message("ModelInferRequest", fields))
    return parse_message("ModelInferResponse", content)


def entry(name: str, value: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name]}


def http_outputs(port: int, name: str, inputs: dict[str, Any]) -> tuple[Any, bytes]:
    """Return the heads of the outputs and their bytes, as HTTP answers them."""
    tensors = [{**entry(key, value), "parameters": {"binary_data_size": value.nbytes}} for key, value in inputs.items()]
    head = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    content = head + b"".join(value.tobytes() for value in inputs.values())
    headers = {"inference_header_content_length": str(len(head))}
    status, answered, answer = ask(port, "POST", f"/v2/models/{name}/infer", content, **headers)
    assert status == 200, answer
    size = int(answered["inference-header-content-length"])
    return orjson.loads(answer[:size])["outputs"], answer[size:]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_have_the_bits_of_http(family: str, ports: tuple[ServerProcess, int], channel: grpc.Channel) -> None:
    inputs, name = example_inputs(family), NAMES[family]
    outputs, content = http_outputs(ports[0].port, name, inputs)
    raw = infer(
        channel,
        model_name=name,
        id="7",
        inputs=[entry(key, value) for key, value in inputs.items()],
        raw_input_contents=[value.tobytes() for value in inputs.values()],
    )
    typed_inputs = [
        {**(tensor := entry(key, value)), "contents": {CONTENTS[tensor["datatype"]]: value.ravel().tolist()}}
        for key, value in inputs.items()
    ]
    typed = infer(channel, model_name=name, model_version="1", inputs=typed_inputs)
    assert b"".join(raw.raw_output_contents) == b"".join(typed.raw_output_contents) == content
    assert [(output.name, output.datatype, list(output.shape)) for output in raw.outputs] == [
        (output["name"], output["datatype"], output["shape"]) for output in outputs
    ]
    assert (raw.id, typed.id, raw.model_name) == ("7", "", name)
    assert raw.model_version == typed.model_version != "1"


PIXELS = example_inputs("image-classifier", batch=1)["images"]
GOOD = {"model_name": "tiny-images", "inputs": [entry("images", PIXELS)], "raw_input_contents": [PIXELS.tobytes()]}
FAILURES: dict[str, tuple[dict[str, Any], Any, str]] = {
    "unknown model": ({**GOOD, "model_name": "none"}, Code.NOT_FOUND, "no model 'none'"),
    "unknown version": ({**GOOD, "model_version": "2"}, Code.NOT_FOUND, "serves version"),
    "shape": (
        {**GOOD, "inputs": [{**entry("images", PIXELS), "shape": [1, 4, 5]}]},
        Code.INVALID_ARGUMENT, "/inputs/0/shape: expected shape [batch, 4, 4], got [1, 4, 5]",
    ),
    "no inputs": ({"model_name": "tiny-images"}, Code.INVALID_ARGUMENT, "/inputs: expected a list of tensors"),
    "bytes": ({**GOOD, "raw_input_contents": [b"x"]}, Code.INVALID_ARGUMENT, "expected 16 bytes"),
    "parameter": (
        {**GOOD, "parameters": [{"key": "priority", "value": {"uint64_param": 3}}]},
        Code.INVALID_ARGUMENT, "/parameters/priority: expected 0",
    ),
    "output": ({**GOOD, "outputs": [{"name": "x"}]}, Code.INVALID_ARGUMENT, "/outputs/0/name"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_has_status_detail_and_code(name: str, channel: grpc.Channel) -> None:
    fields, code, detail = FAILURES[name]
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, **fields)
    error: Any = caught.value
    assert error.code() == code
    assert detail in error.details()
    assert dict(error.trailing_metadata())["ekiben-code"] in {"unknown-model", "invalid-request"}


def test_what_is_no_request_is_refused(channel: grpc.Channel) -> None:
    wide = {**GOOD, "raw_input_contents": [bytes(MAX_BODY_BYTES)]}
    for name, content, code in (
        ("ModelInfer", b"\xff", Code.INVALID_ARGUMENT),
        ("ModelInfer", write_message("ModelInferRequest", wide), Code.RESOURCE_EXHAUSTED),
        ("ModelStreamInfer", b"", Code.UNIMPLEMENTED),
        ("SystemSharedMemoryStatus", b"", Code.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, name, content)
        assert caught.value.code() == code, name  # type: ignore[attr-defined]


def test_health_is_that_of_the_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=30)
    assert caught.value.code() == Code.NOT_FOUND  # type: ignore[attr-defined]


def test_calls_are_counted_by_the_model_that_answered(ports: tuple[ServerProcess, int], channel: grpc.Channel) -> None:
    family, name = FAMILIES[0], NAMES[FAMILIES[0]]
    series = f'ekiben_http_requests_total{{model="{name}",route="/{SERVICE}/ModelInfer",status="%d"'
    answered, refused = (published_count(ports[0], series % status) for status in (200, 422))
    fields = {
        "model_name": name,
        "inputs": [entry(key, value) for key, value in example_inputs(family).items()],
        "raw_input_contents": [value.tobytes() for value in example_inputs(family).values()],
    }
    infer(channel, **fields)
    with pytest.raises(grpc.RpcError):
        infer(channel, **{**fields, "inputs": []})
    wait_until(lambda: counted(ports[0], series % 200) == answered + 1)
    wait_until(lambda: counted(ports[0], series % 422) == refused + 1)


def test_workers_share_the_port_and_their_metrics(ports: tuple[ServerProcess, int]) -> None:
    host, port = ports
    family = f'ekiben_http_requests_total{{route="/{SERVICE}/ServerMetadata"'
    before = published_count(host, family)
    for number in range(32):  # a channel of its own each, so that both workers have some
        options = [("grpc.use_local_subchannel_pool", 1), ("ekiben.number", number)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            assert parse_message("ServerMetadataResponse", call(channel, "ServerMetadata", b"")).name == "ekiben"
    wait_until(lambda: counted(host, family) == before + 32)


class State:
    """The part of a service that the port reads."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.request_metrics = RequestMetrics()
        self.max_body_bytes = 1 << 20
        self.draining = self.closing = False
        self.repository = self
        self.deadlines: list[float] = []
        self.cancelled = 0
        self.error: Exception = KeyError()

    def not_ready_reason(self) -> str | None:
        return None


async def slow(state: Any, message: Any, context: Any) -> bytes:
    """A method that answers after a second, or fails as the name of the model says."""
    state.deadlines.append(context.deadline - time.monotonic())
    match message.model_name:
        case "error":
            raise EkibenError("overloaded", "\ud800 busy", retry_after_s=1.5)
        case "its error":
            raise state.error
        case "bug":
            raise ZeroDivisionError
    try:
        await asyncio.sleep(0 if message.model_name == "fast" else 1)
    except asyncio.CancelledError:
        state.cancelled += 1
        raise
    return b""


def with_server(test: Callable[[State, Any], Any], monkeypatch: pytest.MonkeyPatch, **options: Any) -> State:
    """Run the test against a port of this process whose only method is `slow`."""
    monkeypatch.setattr(server_module, "METHODS", {"Slow": Method(slow, "ModelInferRequest", "infer", is_work=True)})

    async def run() -> State:
        state, port = State(), free_port()
        server = GrpcServer(state, **options)  # type: ignore[arg-type]
        await server.start("127.0.0.1", port)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                more = (channel,) if len(inspect.signature(test).parameters) > 2 else ()
                await test(state, channel.unary_unary(f"/{SERVICE}/Slow"), *more)
        finally:
            await server.stop()
            state.runner.close()
        return state

    return asyncio.run(run())


def named(name: str) -> bytes:
    return CLASSES["ModelInferRequest"](model_name=name).SerializeToString()


async def failure(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_the_deadline_of_a_call_is_that_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(state: State, call: Any) -> None:
        await call(named("fast"), timeout=5)
        await call(named("fast"))
        error = await failure(call(named("slow"), timeout=0.2))
        assert error.code() == Code.DEADLINE_EXCEEDED
        await eventually(lambda: state.request_metrics.in_flight == 0)

    state = with_server(test, monkeypatch)
    assert 4 < state.deadlines[0] < 6 < state.deadlines[1]
    assert state.cancelled == 1
    assert state.request_metrics.responses == {(f"/{SERVICE}/Slow", 200): 2, (f"/{SERVICE}/Slow", 499): 1}


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


def test_a_cancelled_call_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(state: State, call: Any) -> None:
        running = call(named("slow"))
        await eventually(lambda: state.request_metrics.in_flight == 1)
        running.cancel()
        await eventually(lambda: state.request_metrics.in_flight == 0)

    assert with_server(test, monkeypatch).cancelled == 1


def test_errors_have_a_code_and_a_time_to_try_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(state: State, call: Any) -> None:
        error = await failure(call(named("error")))
        assert (error.code(), error.details()) == (Code.UNAVAILABLE, "\\ud800 busy")
        assert dict(error.trailing_metadata()) == {"ekiben-code": "overloaded", "grpc-retry-pushback-ms": "1500"}
        error = await failure(call(named("bug")))
        assert error.code() == Code.INTERNAL
        assert "ZeroDivision" not in error.details()
        assert error.details().rpartition(" ")[2] in caplog.text
        state.closing = True
        error = await failure(call(named("fast")))
        assert (error.code(), error.details()) == (Code.UNAVAILABLE, "the service is shutting down")

    state = with_server(test, monkeypatch)
    assert {status for _, status in state.request_metrics.responses} == {503, 500}


def test_keys_are_checked_before_the_message_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", alice="scopes=infer", bob="scopes=models,metrics,admin")
    access = access_policy(Settings(keys=tmp_path / "keys"), None)

    async def held_back() -> AsyncIterator[bytes]:
        await asyncio.sleep(600)
        yield b""

    async def test(_: State, call: Any, channel: Any) -> None:
        unread = channel.stream_unary(f"/{SERVICE}/Slow")
        for metadata, code in (
            ((), Code.UNAUTHENTICATED),
            ((("x-api-key", "k"),), Code.UNAUTHENTICATED),
            ((("x-api-key", "k"), ("x-api-key", keys["alice"])), Code.UNAUTHENTICATED),
            ((("authorization", f"Bearer {keys['bob']}"),), Code.PERMISSION_DENIED),
        ):
            assert (await failure(unread(held_back(), metadata=metadata, timeout=20))).code() == code
            error = await failure(call(b"\xff", metadata=metadata))
            assert error.code() == code
            assert dict(error.trailing_metadata())["ekiben-code"] in {"unauthorized", "forbidden"}
        await call(named("fast"), metadata=(("authorization", f"Bearer {keys['alice']}"),))
        await call(named("fast"), metadata=(("x-api-key", keys["alice"]),))

    state = with_server(test, monkeypatch, access=access)
    assert state.request_metrics.responses == {
        (f"/{SERVICE}/Slow", 401): 6, (f"/{SERVICE}/Slow", 403): 2, (f"/{SERVICE}/Slow", 200): 2,
    }  # fmt: skip


def test_calls_count_against_the_limits_of_their_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", few="scopes=infer concurrency=1", slow="scopes=infer rate=0.01 burst=2")
    access = access_policy(Settings(keys=tmp_path / "keys"), None)

    async def test(_: State, call: Any) -> None:
        few, rated = ((("x-api-key", keys[name]),) for name in ("few", "slow"))
        first = call(named("slow"), metadata=few)
        await asyncio.sleep(0.3)
        error = await failure(call(named("fast"), metadata=few))
        assert (error.code(), error.details()) == (
            Code.RESOURCE_EXHAUSTED, "the key 'few' may have 1 requests in progress",
        )  # fmt: skip
        first.cancel()
        await asyncio.sleep(0.3)
        for _ in range(3):
            await call(named("fast"), metadata=few)
        await call(named("fast"), metadata=rated)
        await failure(call(named("bug"), metadata=rated))
        error = await failure(call(named("fast"), metadata=rated))
        assert error.code() == Code.RESOURCE_EXHAUSTED
        assert 90_000 < int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 100_000

    with_server(test, monkeypatch, access=access)


@pytest.mark.parametrize("error", [EkibenError("timeout", "late"), KeyError("secret")])
def test_a_call_that_failed_is_freed_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")  # pytest keeps the tracebacks of what is logged

    async def test(state: State, call: Any) -> None:
        state.error = error
        before = num_contexts()
        await failure(call(named("its error")))
        assert error.__traceback__ is None  # whoever keeps the error does not keep the call
        assert num_contexts() == before

    def num_contexts() -> int:
        # `isinstance` asks lazy objects of other libraries for their class, which warn.
        return sum(type(value) is RequestContext for value in gc.get_objects())

    gc.disable()
    try:
        with_server(test, monkeypatch)
    finally:
        gc.enable()


def test_the_port_speaks_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = write_tls(tmp_path)
    assert files.client_ca is not None
    monkeypatch.setattr(server_module, "METHODS", {"Slow": Method(slow, "ModelInferRequest", "infer", is_work=True)})

    async def run() -> None:
        state, port = State(), free_port()
        server = GrpcServer(state)  # type: ignore[arg-type]
        await server.start("127.0.0.1", port, files)
        issued = CA.issue_cert("client@example.org")
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        known = grpc.ssl_channel_credentials(files.client_ca.read_bytes(), *pair)  # type: ignore[union-attr]
        stranger = grpc.ssl_channel_credentials(files.client_ca.read_bytes())  # type: ignore[union-attr]
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", known) as channel:
            await channel.unary_unary(f"/{SERVICE}/Slow")(named("fast"), timeout=20)
        for channel in (
            grpc.aio.secure_channel(f"127.0.0.1:{port}", stranger), grpc.aio.insecure_channel(f"127.0.0.1:{port}"),
        ):  # fmt: skip
            async with channel:
                error = await failure(channel.unary_unary(f"/{SERVICE}/Slow")(named("fast"), timeout=20))
                assert error.code() == Code.UNAVAILABLE
        await server.stop()
        state.runner.close()

    asyncio.run(run())


def test_every_error_has_a_status() -> None:
    assert CODES.keys() == STATUS.keys()
