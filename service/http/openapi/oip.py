"""The routes of the Open Inference Protocol, version 2, and of Triton's extensions."""

from collections.abc import Mapping

from service.http.openapi.operation import EMPTY, Operation
from service.http.openapi.schemas import FLAG, NUMBER, TEXT, WHOLE, Schema, array, model_schema, nullable, record
from service.http.routes.oip_generate import NEUTRAL, REQUEST_SCHEMA
from service.http.wire.event_stream import EVENT_STREAM
from service.http.wire.messages import JSON
from service.http.wire.oip_parameters import NEUTRAL_OF_REQUEST, NEUTRAL_OF_TENSOR, Neutral
from service.http.wire.oip_request import MAX_TIMEOUT_US
from service.http.wire.oip_tensors import DATATYPES, MAX_AXIS_SIZE
from service.tasks.generate import GenerateRequest

TAG = "Open Inference Protocol"
OCTETS = "application/octet-stream"
JSON_SIZE = "Inference-Header-Content-Length"
DATATYPE: Schema = {"enum": list(DATATYPES.values())}
SHAPE = array({**WHOLE, "minimum": 0, "maximum": MAX_AXIS_SIZE - 1})
DATA = array({}, description="numbers, flags or texts in row-major order, flat or nested")


def _neutral(parameters: Mapping[str, Neutral]) -> Schema:
    """Return the schemas of parameters that are accepted where they change nothing."""
    return {
        name: nullable({"type": "object"} if neutral.kind is dict else {"enum": list(neutral.values)})
        for name, neutral in parameters.items()
    }


TENSOR_METADATA = record({"name": TEXT, "datatype": DATATYPE, "shape": array({**WHOLE, "minimum": -1})})
INPUT = record(
    {"name": TEXT, "shape": SHAPE, "datatype": DATATYPE},
    {
        "parameters": nullable(
            record({}, {"binary_data_size": nullable({**WHOLE, "minimum": 0}), **_neutral(NEUTRAL_OF_TENSOR)})
        ),
        "data": nullable(DATA),
    },
)
REQUESTED_OUTPUT = record(
    {"name": TEXT},
    {
        "parameters": nullable(
            record(
                {},
                {
                    "binary_data": nullable(FLAG),
                    "classification": nullable(
                        {**WHOLE, "minimum": 0, "description": "answer with that many classes of each row; 0: none"}
                    ),
                    **_neutral(NEUTRAL_OF_TENSOR),
                },
            )
        )
    },
)
OUTPUT = record(
    {"name": TEXT, "datatype": DATATYPE, "shape": SHAPE},
    {"parameters": record({"binary_data_size": {**WHOLE, "minimum": 0}}), "data": DATA},
)
REQUEST = record(
    {"inputs": array(INPUT, minItems=1)},
    {
        "id": nullable({**TEXT, "description": "returned with the answer"}),
        "model_name": nullable({**TEXT, "description": "the model of the path"}),
        "model_version": nullable({**TEXT, "description": "the version of the path, or 1"}),
        "parameters": nullable(
            record(
                {},
                {
                    "timeout": nullable(
                        {
                            **WHOLE,
                            "minimum": 0,
                            "maximum": MAX_TIMEOUT_US,
                            "description": "microseconds until the deadline, 0 for none of its own",
                        }
                    ),
                    "binary_data_output": nullable(FLAG),
                    **_neutral(NEUTRAL_OF_REQUEST),
                },
            )
        ),
        "outputs": nullable(array(REQUESTED_OUTPUT)),
    },
)
BINARY: Schema = {
    "type": "string",
    "format": "binary",
    "description": f"JSON as of {JSON}, then the bytes of the tensors whose entries have `binary_data_size`, in order, "
    f"little-endian; {JSON_SIZE} is the size of the JSON. A text is its size in 4 bytes and its UTF-8.",
}
ANSWER = record({"model_name": TEXT, "model_version": TEXT, "outputs": array(OUTPUT)}, {"id": TEXT})
JSON_SIZE_PARAMETER: Schema = {
    "name": JSON_SIZE,
    "in": "header",
    "description": "bytes of JSON at the start of the body; empty as if absent",
    "schema": {"anyOf": [{**WHOLE, "minimum": 0}, EMPTY]},
}
JSON_SIZE_HEADER: Schema = {
    JSON_SIZE: {"description": "bytes of JSON at the start of a binary answer", "schema": {**WHOLE, "minimum": 1}}
}
DETAILS = record(
    {},
    {
        "finish_reason": {"enum": ["stop", "length"]},
        "tokens": WHOLE,
        "seed": WHOLE,
        "logprobs": array(record({"token": TEXT, "logprob": NUMBER})),
    },
)
GENERATED = record({"model_name": TEXT, "model_version": TEXT, "text_output": TEXT}, {"id": TEXT, "details": DETAILS})


def _generate_request() -> Schema:
    """Return Triton's request, with the fields of POST /generate as its parameters."""
    fields = model_schema(GenerateRequest)["properties"]
    stop = {"anyOf": [TEXT, {key: value for key, value in fields["stop"].items() if key != "description"}]}
    parameters = {
        **{name: fields[name] for name in fields if name not in {"model", "prompt"}},
        "stop": {**stop, "description": fields["stop"]["description"]},
        **{name: {"enum": list(values)} for name, values in NEUTRAL.items()},
        "details": FLAG,
    }
    properties = REQUEST_SCHEMA["properties"]
    described = {**properties["parameters"], **record({}, parameters)}
    return {
        **REQUEST_SCHEMA,
        "properties": {
            "text_input": properties["text_input"],
            "id": nullable(properties["id"]),
            "parameters": nullable(described),
        },
    }


OPERATIONS: Mapping[str, Operation] = {
    "/v2": Operation(
        tag=TAG,
        summary="Describe the server.",
        answer={JSON: record({"name": TEXT, "version": TEXT, "extensions": array(TEXT)})},
    ),
    "/v2/models/{model}": Operation(
        tag=TAG,
        summary="Describe the tensors of a model.",
        answer={
            JSON: record(
                {
                    "name": TEXT,
                    "versions": array(TEXT),
                    "platform": TEXT,
                    "inputs": array(TENSOR_METADATA),
                    "outputs": array(TENSOR_METADATA),
                },
                {"parameters": record({"alternative_inputs": array(TENSOR_METADATA)})},
            )
        },
        errors=("unknown-model", "not-ready"),
    ),
    "/v2/models/{model}/ready": Operation(
        tag=TAG,
        summary="Ask whether a model is READY.",
        answer={JSON: record({"name": TEXT, "ready": {"const": True}, "live": {"const": True}})},
        errors=("unknown-model", "not-ready"),
    ),
    "/v2/models/{model}/infer": Operation(
        tag=TAG,
        summary="Compute the outputs of a model from its raw tensors.",
        request={JSON: REQUEST, OCTETS: BINARY},
        parameters=(JSON_SIZE_PARAMETER,),
        answer={JSON: ANSWER, OCTETS: BINARY},
        meaning="The requested outputs in the requested order.",
        headers=JSON_SIZE_HEADER,
    ),
    "/v2/models/{model}/generate": Operation(
        tag=TAG,
        summary="Continue one prompt, as Triton's generate extension does.",
        request={JSON: _generate_request()},
        answer={JSON: GENERATED},
        errors=("wrong-task",),
    ),
    "/v2/models/{model}/generate_stream": Operation(
        tag=TAG,
        summary="Continue one prompt, and send the text as it is generated.",
        request={JSON: _generate_request()},
        answer={EVENT_STREAM: None},
        meaning="Events (GeneratedText) with parts of the text; the last has `details` with a `finish_reason`, or is "
        "an error object.",
        events={"GeneratedText": GENERATED},
        errors=("wrong-task",),
    ),
}
