"""The methods of the Open Inference Protocol over gRPC, each by the code that answers the same question over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.grpc.messages import read_parameters, write_message
from service.grpc.tensors import read_request, write_response
from service.http.oip.control import list_index, load_model, unload_model
from service.http.oip.inference import infer
from service.http.oip.models import check_ready, model_config, model_metadata, resolve_model, server_metadata
from service.http.oip.statistics import model_statistics
from service.http.route import Scope, ServiceState
from service.http.routes.metrics import merged_samples
from service.http.wire.oip_request import parse_document
from service.http.wire.oip_tensors import build_arrays
from service.tasks.faults import fault

Handler = Callable[[ServiceState, Any, RequestContext], Awaitable[bytes]]
# Data types of a model configuration, numbered from 1.
TYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING"),
)


class Method(NamedTuple):
    """`request` is the name of its message; `is_work` is refused while the service drains."""

    handle: Handler
    request: str
    scope: Scope | None = "models"
    is_work: bool = False


async def _infer(state: ServiceState, message: Any, context: RequestContext) -> bytes:
    model = resolve_model(state, message.model_name, message.model_version or None)
    context.model, context.version = model.manifest.name, model.manifest.version
    document, body = read_request(message)
    parsed, request_id, data = parse_document(document, model.manifest)
    tensors = build_arrays(parsed.tensors, data, body, 0)
    outputs = await infer(state, model, parsed, tensors, context)
    return write_response(model.manifest, {name: outputs[name] for name in parsed.binary_outputs}, request_id)


async def _server_live(_: ServiceState, __: Any, ___: RequestContext) -> bytes:
    return write_message("ServerLiveResponse", {"live": True})


async def _server_ready(state: ServiceState, _: Any, __: RequestContext) -> bytes:
    return write_message("ServerReadyResponse", {"ready": is_ready(state)})


def is_ready(state: ServiceState) -> bool:
    return not state.draining and state.repository.not_ready_reason() is None


async def _model_ready(state: ServiceState, message: Any, _: RequestContext) -> bytes:
    try:
        check_ready(state, message.name, message.version or None)
    except EkibenError as error:
        if error.slug != "not-ready":
            raise
        return write_message("ModelReadyResponse", {"ready": False})
    return write_message("ModelReadyResponse", {"ready": True})


async def _server_metadata(_: ServiceState, __: Any, ___: RequestContext) -> bytes:
    return write_message("ServerMetadataResponse", server_metadata())


async def _model_metadata(state: ServiceState, message: Any, _: RequestContext) -> bytes:
    metadata = model_metadata(resolve_model(state, message.name, message.version or None).manifest)
    metadata.pop("parameters", None)
    return write_message("ModelMetadataResponse", metadata)


async def _model_config(state: ServiceState, message: Any, _: RequestContext) -> bytes:
    config = model_config(resolve_model(state, message.name, message.version or None).manifest)
    for tensor in (*config["input"], *config["output"]):
        tensor["data_type"] = 1 + TYPES.index(tensor["data_type"].removeprefix("TYPE_"))
    return write_message("ModelConfigResponse", {"config": config})


async def _model_statistics(state: ServiceState, message: Any, _: RequestContext) -> bytes:
    statistics = model_statistics(state, merged_samples(state), message.name, message.version or None)
    for model in statistics["model_stats"]:
        del model["batch_stats"], model["served_version"]
    return write_message("ModelStatisticsResponse", statistics)


async def _index(state: ServiceState, message: Any, _: RequestContext) -> bytes:
    entries = list_index(state, {"ready": message.ready, "repository_name": message.repository_name})
    return write_message("RepositoryIndexResponse", {"models": entries})


async def _load(state: ServiceState, message: Any, context: RequestContext) -> bytes:
    await load_model(state, message.model_name, _control_fields(message), context)
    return write_message("RepositoryModelLoadResponse", {})


async def _unload(state: ServiceState, message: Any, context: RequestContext) -> bytes:
    await unload_model(state, message.model_name, _control_fields(message), context)
    return write_message("RepositoryModelUnloadResponse", {})


def _control_fields(message: Any) -> dict[str, Any]:
    if message.repository_name:
        raise fault(
            "/repository_name", f"expected no name, because there is one repository, got {message.repository_name!r}"
        )
    return {"parameters": read_parameters(message.parameters)}


METHODS: dict[str, Method] = {
    "ServerLive": Method(_server_live, "ServerLiveRequest", scope=None),
    "ServerReady": Method(_server_ready, "ServerReadyRequest", scope=None),
    "ModelReady": Method(_model_ready, "ModelReadyRequest"),
    "ServerMetadata": Method(_server_metadata, "ServerMetadataRequest"),
    "ModelMetadata": Method(_model_metadata, "ModelMetadataRequest"),
    "ModelInfer": Method(_infer, "ModelInferRequest", scope="infer", is_work=True),
    "ModelConfig": Method(_model_config, "ModelConfigRequest"),
    "ModelStatistics": Method(_model_statistics, "ModelStatisticsRequest"),
    "RepositoryIndex": Method(_index, "RepositoryIndexRequest"),
    "RepositoryModelLoad": Method(_load, "RepositoryModelLoadRequest", scope="admin", is_work=True),
    "RepositoryModelUnload": Method(_unload, "RepositoryModelUnloadRequest", scope="admin", is_work=True),
}
