"""Our messages against those of NVIDIA's client, field by field and on the wire."""

import warnings
from typing import Any

import pytest

from service.errors import EkibenError
from service.grpc.messages import CLASSES, MESSAGES, parse_message, read_parameters, write_message

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tritonclient.grpc import model_config_pb2, service_pb2

# Our names for messages that Triton nests in others, or calls otherwise.
THEIRS: dict[str, Any] = {
    "TensorMetadata": service_pb2.ModelMetadataResponse.TensorMetadata,
    "InferParameterEntry": service_pb2.ModelInferRequest.ParametersEntry,
    "InferInputTensor": service_pb2.ModelInferRequest.InferInputTensor,
    "InferRequestedOutputTensor": service_pb2.ModelInferRequest.InferRequestedOutputTensor,
    "InferOutputTensor": service_pb2.ModelInferResponse.InferOutputTensor,
    "ModelIndex": service_pb2.RepositoryIndexResponse.ModelIndex,
    "RepositoryParameter": service_pb2.ModelRepositoryParameter,
    "RepositoryParameterEntry": service_pb2.RepositoryModelLoadRequest.ParametersEntry,
    "ModelConfig": model_config_pb2.ModelConfig,
    "InputConfig": model_config_pb2.ModelInput,
    "TensorConfig": model_config_pb2.ModelOutput,
    "TensorReshape": model_config_pb2.ModelTensorReshape,
    "VersionPolicy": model_config_pb2.ModelVersionPolicy,
    "LatestVersions": model_config_pb2.ModelVersionPolicy.Latest,
    "TransactionPolicy": model_config_pb2.ModelTransactionPolicy,
    "DynamicBatching": model_config_pb2.ModelDynamicBatching,
}
TRITON = sorted(set(MESSAGES) - {"HealthCheckRequest", "HealthCheckResponse"})
ENUM, INT32 = 14, 5


@pytest.mark.parametrize("name", TRITON)
def test_every_field_has_the_number_and_type_of_triton(name: str) -> None:
    theirs = (THEIRS.get(name) or getattr(service_pb2, name)).DESCRIPTOR.fields_by_name
    for field in CLASSES[name].DESCRIPTOR.fields:
        other = theirs[field.name]
        kind = INT32 if other.type == ENUM else other.type
        assert (field.number, field.type, field.is_repeated) == (other.number, kind, other.is_repeated), field.name


def test_a_request_of_the_client_is_read() -> None:
    theirs = service_pb2.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"ab"])
    theirs.parameters["timeout"].int64_param = 5
    theirs.parameters["flag"].bool_param = False
    theirs.parameters["empty"].SetInParent()
    tensor = theirs.inputs.add(name="x", datatype="UINT8", shape=[1, 2])
    tensor.contents.uint_contents.extend([1, 2])
    ours = parse_message("ModelInferRequest", theirs.SerializeToString())
    assert (ours.model_name, ours.id, list(ours.raw_input_contents)) == ("m", "7", [b"ab"])
    assert read_parameters(ours.parameters) == {"timeout": 5, "flag": False, "empty": None}
    assert list(ours.inputs[0].contents.uint_contents) == [1, 2]


def test_an_answer_is_read_by_the_client() -> None:
    outputs = [{"name": "y", "datatype": "FP32", "shape": (1, 2)}]
    fields = {"model_name": "m", "id": "", "outputs": outputs, "raw_output_contents": [b"12345678"]}
    theirs = service_pb2.ModelInferResponse.FromString(write_message("ModelInferResponse", fields))
    assert (theirs.model_name, theirs.outputs[0].shape, theirs.raw_output_contents) == ("m", [1, 2], [b"12345678"])


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(EkibenError, match=r"expected a message inference\.ModelInferRequest") as caught:
        parse_message("ModelInferRequest", b"\xff\xff\xff")
    assert caught.value.slug == "malformed-json"
