"""The native routes: inference endpoints, lists of models."""

from collections.abc import Mapping

from service.http.openapi.operation import SEED_HEADER, Operation
from service.http.openapi.schemas import TEXT, WHOLE, Schema, array, model_schema, nullable, record
from service.http.routes.native import UPLOAD_TYPES, ClassifyQuery, PredictQuery
from service.http.wire.event_stream import EVENT_STREAM
from service.http.wire.messages import JSON
from service.tasks.classify import ClassifyAnswer, ClassifyRequest
from service.tasks.generate import GenerateAnswer, GenerateRequest, StreamEvent
from service.tasks.predict import PredictAnswer, PredictRequest
from service.tasks.sequence_predict import SequencePredictAnswer, SequencePredictRequest

TAG = "Native"
PNG = "image/png"
BYTES: Schema = {"type": "string", "format": "binary"}
FILES = dict.fromkeys(UPLOAD_TYPES, BYTES)
STATES = ("LOADING", "VERIFYING", "WARMING", "READY", "DRAINING", "UNLOADED", "FAILED")
SUMMARY: dict[str, Schema] = {
    "name": TEXT,
    "state": {"enum": list(STATES)},
    "reason": nullable({**TEXT, "description": "why the model is not READY"}),
    "version": nullable(TEXT),
    "task": nullable(TEXT),
    "pair": nullable({**TEXT, "description": "reader -> head"}),
    "summary": nullable(TEXT),
    "provider": nullable({**TEXT, "description": "of onnxruntime"}),
    "next": nullable(record({"version": nullable(TEXT), "state": {"enum": list(STATES)}, "reason": nullable(TEXT)})),
    "draining": array(TEXT, description="versions that finish their last requests"),
}
# Of a candidate, how its answers compare with those of the serving version.
COMPARISON = record(
    {
        "with": {**TEXT, "description": "the serving version"},
        "compared": WHOLE,
        "different": WHOLE,
        "failed": {**WHOLE, "description": "requests that only the serving version answered"},
        "skipped": WHOLE,
        "decision": {"enum": ["undecided", "passed", "stopped"]},
        "examples": array(TEXT, description="what differs, and the ids of the requests"),
        "here": {"type": "object", "description": "comparisons of this worker, by outcome"},
    }
)
STREAM_END = record(
    {
        "model": TEXT,
        "version": TEXT,
        "seed": WHOLE,
        "completions": array(record({"finish_reason": {"enum": ["stop", "length"]}, "tokens": WHOLE})),
    }
)

OPERATIONS: Mapping[str, Operation] = {
    "/classify": Operation(
        tag=TAG,
        summary="Classify images or rows of a table.",
        description="The query belongs to an image file as the body; with JSON everything is in the body.",
        request={JSON: model_schema(ClassifyRequest), **FILES},
        query=ClassifyQuery,
        answer={JSON: model_schema(ClassifyAnswer)},
        errors=("wrong-task",),
    ),
    "/sequence-predict": Operation(
        tag=TAG,
        summary="Classify texts or series of numbers of up to the model's limits.max_steps steps.",
        request={JSON: model_schema(SequencePredictRequest)},
        answer={JSON: model_schema(SequencePredictAnswer)},
        errors=("wrong-task",),
    ),
    "/generate": Operation(
        tag=TAG,
        summary="Continue prompts, or draw images.",
        description="With `Accept: image/png` the images are one PNG, a grid.",
        request={JSON: model_schema(GenerateRequest)},
        answer={JSON: model_schema(GenerateAnswer), PNG: BYTES},
        headers=SEED_HEADER,
        errors=("wrong-task",),
    ),
    "/generate/stream": Operation(
        tag=TAG,
        summary="Continue prompts, and send the text as it is generated.",
        request={JSON: model_schema(GenerateRequest)},
        answer={EVENT_STREAM: None},
        meaning="Events (StreamEvent), the last of each prompt with `finish_reason` and `tokens`; then one event `end` "
        "(StreamEnd), or one event `error` with a problem document.",
        events={"StreamEvent": model_schema(StreamEvent), "StreamEnd": STREAM_END},
        headers=SEED_HEADER,
        errors=("wrong-task",),
    ),
    "/predict": Operation(
        tag=TAG,
        summary="Answer with any model but a language model: what its reader takes, what its head answers.",
        description="GET /models/{model} has the fields, the JSON schemas and an example of one model. The query "
        "belongs to an image file as the body; with JSON everything is in the body.",
        request={JSON: model_schema(PredictRequest), **FILES},
        query=PredictQuery,
        answer={JSON: model_schema(PredictAnswer)},
        errors=("wrong-task",),
    ),
    "/models": Operation(
        tag=TAG,
        summary="List the models with their states.",
        answer={JSON: record({"models": array(record(SUMMARY, {"comparison": nullable(COMPARISON)}))})},
    ),
    "/models/{model}": Operation(
        tag=TAG,
        summary="Describe a model.",
        description="Labels, limits, domain, parity at export and at load, provenance; for a READY model `requests`: "
        "its routes, fields, the JSON schemas of items and predictions, an example.",
        answer={JSON: record(SUMMARY, additionalProperties=True)},
        errors=("unknown-model",),
    ),
    "/models/{model}/card": Operation(
        tag=TAG,
        summary="The model card in the bundle, in Markdown.",
        answer={"text/markdown": TEXT},
        errors=("unknown-model", "unknown-route", "not-ready"),
        has_entity_tag=True,
    ),
    "/models/{model}/card/{plot}": Operation(
        tag=TAG,
        summary="A plot of the model card.",
        answer={PNG: BYTES},
        errors=("unknown-model", "unknown-route", "not-ready"),
        has_entity_tag=True,
    ),
}
