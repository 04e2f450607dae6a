"""The routes of Triton's extensions that compute nothing: configuration, statistics, the model repository."""

from collections.abc import Mapping

from service.http.oip.control import FLAGS, STATES
from service.http.openapi.oip import TAG
from service.http.openapi.operation import Operation
from service.http.openapi.schemas import TEXT, WHOLE, Schema, array, nullable, record
from service.http.wire.messages import JSON
from service.http.wire.oip_tensors import DATATYPES

COUNT: Schema = {**WHOLE, "minimum": 0}
DIMS = array({**WHOLE, "minimum": -1})
TYPES: Schema = {"enum": [f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in DATATYPES.values()]}
TENSOR = record({"name": TEXT, "data_type": TYPES, "dims": DIMS}, {"reshape": record({"shape": DIMS})})
CONFIG = record(
    {
        "name": TEXT,
        "platform": TEXT,
        "backend": TEXT,
        "version_policy": {"type": "object"},
        "max_batch_size": COUNT,
        "input": array(TENSOR),
        "output": array(TENSOR),
        "default_model_filename": TEXT,
        "model_transaction_policy": record({"decoupled": {"const": False}}),
    },
    {"dynamic_batching": {"type": "object"}},
)
DURATION = record({"count": COUNT, "ns": COUNT})
STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
STATISTICS = record(
    {
        "model_stats": array(
            record(
                {
                    "name": TEXT,
                    "version": {**TEXT, "description": "the version asked for, or 1"},
                    "served_version": TEXT,
                    "last_inference": {**COUNT, "description": "milliseconds since 1970; 0 if there was none"},
                    "inference_count": COUNT,
                    "execution_count": COUNT,
                    "inference_stats": record(dict.fromkeys(STAGES, DURATION)),
                    "batch_stats": array({}, maxItems=0),
                }
            )
        )
    }
)
INDEX = array(record({"name": TEXT, "version": TEXT, "state": {"enum": sorted(set(STATES.values()))}, "reason": TEXT}))
NO_PARAMETERS: Schema = nullable(record({}))
UNLOAD_PARAMETERS: Schema = nullable(record({}, {"unload_dependents": nullable({"enum": list(FLAGS.values)})}))

OPERATIONS: Mapping[str, Operation] = {
    "/v2/models/{model}/config": Operation(
        tag=TAG,
        summary="Describe a model as Triton's model configuration does.",
        answer={JSON: CONFIG},
        errors=("unknown-model", "not-ready"),
    ),
    "/v2/models/{model}/stats": Operation(
        tag=TAG,
        summary="Count the requests of a model, and the time that they took.",
        description="The numbers are those of GET /metrics.",
        answer={JSON: STATISTICS},
        errors=("unknown-model",),
    ),
    "/v2/models/stats": Operation(tag=TAG, summary="Count the requests of every model.", answer={JSON: STATISTICS}),
    "/v2/repository/index": Operation(
        tag=TAG,
        summary="List the versions that are loaded or known.",
        request={JSON: record({}, {"ready": nullable({"type": "boolean"}), "repository_name": {"enum": ["", None]}})},
        needs_body=False,
        answer={JSON: INDEX},
    ),
    "/v2/repository/models/{model}/load": Operation(
        tag=TAG,
        summary="Load the version that `current` of a model names.",
        request={JSON: record({}, {"parameters": NO_PARAMETERS})},
        needs_body=False,
        answer={JSON: record({})},
        meaning="This worker has loaded it; the others follow at their next scan.",
    ),
    "/v2/repository/models/{model}/unload": Operation(
        tag=TAG,
        summary="Stop serving a model until it is loaded again.",
        request={JSON: record({}, {"parameters": UNLOAD_PARAMETERS})},
        needs_body=False,
        answer={JSON: record({})},
        meaning="This worker has unloaded it; the others follow at their next scan.",
    ),
}
