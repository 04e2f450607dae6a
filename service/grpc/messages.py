"""The messages of the Open Inference Protocol over gRPC, and of gRPC's health service, as classes of protobuf.

The classes belong to a pool of their own, so they do not meet those that a client in the same process has registered
under the same names. Of Triton's messages, fields that are never read or written are left out; their numbers are free.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from service.errors import EkibenError

PACKAGE = "inference"
NAME_AND_VERSION = "name:1:string version:2:string"
DURATIONS = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"]
# Message -> its fields as NAME:NUMBER:TYPE, with * before the type of a repeated field and ? before that of one of a
# choice. A map is a repeated entry of key and value, as on the wire. An enumeration is its number.
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": NAME_AND_VERSION,
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": f"{NAME_AND_VERSION} extensions:3:*string",
    "ModelMetadataRequest": NAME_AND_VERSION,
    "TensorMetadata": "name:1:string datatype:2:string shape:3:*int64",
    "ModelMetadataResponse": (
        "name:1:string versions:2:*string platform:3:string inputs:4:*TensorMetadata outputs:5:*TensorMetadata"
    ),
    "InferParameter": (
        "bool_param:1:?bool int64_param:2:?int64 string_param:3:?string double_param:4:?double uint64_param:5:?uint64"
    ),
    "InferParameterEntry": "key:1:string value:2:InferParameter",
    "InferTensorContents": (
        "bool_contents:1:*bool int_contents:2:*int32 int64_contents:3:*int64 uint_contents:4:*uint32 "
        "uint64_contents:5:*uint64 fp32_contents:6:*float fp64_contents:7:*double bytes_contents:8:*bytes"
    ),
    "InferInputTensor": (
        "name:1:string datatype:2:string shape:3:*int64 parameters:4:*InferParameterEntry "
        "contents:5:InferTensorContents"
    ),
    "InferRequestedOutputTensor": "name:1:string parameters:2:*InferParameterEntry",
    "ModelInferRequest": (
        "model_name:1:string model_version:2:string id:3:string parameters:4:*InferParameterEntry "
        "inputs:5:*InferInputTensor outputs:6:*InferRequestedOutputTensor raw_input_contents:7:*bytes"
    ),
    "InferOutputTensor": "name:1:string datatype:2:string shape:3:*int64",
    "ModelInferResponse": (
        "model_name:1:string model_version:2:string id:3:string outputs:5:*InferOutputTensor "
        "raw_output_contents:6:*bytes"
    ),
    "ModelConfigRequest": NAME_AND_VERSION,
    "TensorReshape": "shape:1:*int64",
    "TensorConfig": "name:1:string data_type:2:int32 dims:3:*int64 reshape:5:TensorReshape",
    "InputConfig": "name:1:string data_type:2:int32 dims:4:*int64 reshape:5:TensorReshape",
    "LatestVersions": "num_versions:1:uint32",
    "VersionPolicy": "latest:1:LatestVersions",
    "TransactionPolicy": "decoupled:1:bool",
    "DynamicBatching": "",
    "ModelConfig": (
        "name:1:string platform:2:string version_policy:3:VersionPolicy max_batch_size:4:int32 input:5:*InputConfig "
        "output:6:*TensorConfig default_model_filename:8:string dynamic_batching:11:DynamicBatching backend:17:string "
        "model_transaction_policy:19:TransactionPolicy"
    ),
    "ModelConfigResponse": "config:1:ModelConfig",
    "ModelStatisticsRequest": NAME_AND_VERSION,
    "StatisticDuration": "count:1:uint64 ns:2:uint64",
    "InferStatistics": " ".join(f"{name}:{number}:StatisticDuration" for number, name in enumerate(DURATIONS, 1)),
    "ModelStatistics": (
        f"{NAME_AND_VERSION} last_inference:3:uint64 inference_count:4:uint64 execution_count:5:uint64 "
        "inference_stats:6:InferStatistics"
    ),
    "ModelStatisticsResponse": "model_stats:1:*ModelStatistics",
    "RepositoryIndexRequest": "repository_name:1:string ready:2:bool",
    "ModelIndex": f"{NAME_AND_VERSION} state:3:string reason:4:string",
    "RepositoryIndexResponse": "models:1:*ModelIndex",
    "RepositoryParameter": "bool_param:1:?bool int64_param:2:?int64 string_param:3:?string bytes_param:4:?bytes",
    "RepositoryParameterEntry": "key:1:string value:2:RepositoryParameter",
    "RepositoryModelLoadRequest": (
        "repository_name:1:string model_name:2:string parameters:3:*RepositoryParameterEntry"
    ),
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": (
        "repository_name:1:string model_name:2:string parameters:3:*RepositoryParameterEntry"
    ),
    "RepositoryModelUnloadResponse": "",
    "HealthCheckRequest": "service:1:string",
    "HealthCheckResponse": "status:1:int32",
}
CHOICE = "choice"


def _build() -> dict[str, type[Message]]:
    file = FileDescriptorProto(name="ekiben_inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        _add_fields(file.message_type.add(name=name), fields)
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


def _add_fields(message: DescriptorProto, fields: str) -> None:
    for text in fields.split():
        name, number, kind = text.split(":")
        field = message.field.add(name=name, number=int(number))
        field.label = FieldDescriptorProto.LABEL_REPEATED if kind[0] == "*" else FieldDescriptorProto.LABEL_OPTIONAL
        if kind[0] == "?":
            if not message.oneof_decl:
                message.oneof_decl.add(name=CHOICE)
            field.oneof_index = 0
        kind = kind.lstrip("*?")
        if kind in MESSAGES:
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
        else:
            field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


CLASSES = _build()


def parse_message(name: str, content: bytes) -> Any:
    """Return the message; raises EkibenError("malformed-json")."""
    try:
        return CLASSES[name].FromString(content)
    except DecodeError as error:
        raise EkibenError("malformed-json", f"expected a message {PACKAGE}.{name}: {error}") from None


def write_message(name: str, fields: dict[str, Any]) -> bytes:
    """Return the message of these fields, in which messages are dictionaries."""
    return CLASSES[name](**fields).SerializeToString()


def read_parameters(entries: Any) -> dict[str, Any]:
    """Return a map of parameters as a dictionary of plain values; None for a parameter without a value."""
    parameters = {}
    for entry in entries:
        choice = entry.value.WhichOneof(CHOICE)
        parameters[entry.key] = None if choice is None else getattr(entry.value, choice)
    return parameters
