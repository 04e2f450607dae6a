"""What the Open Inference Protocol says of a model: its version, its tensors, and Triton's model configuration.

Invariant: everything belongs to the version that serves now.
"""

from typing import Any

from service.contract.tensors import TensorSpec, has_rows_first
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.http.route import ServiceState
from service.http.wire.oip_request import ANY_VERSION
from service.http.wire.oip_tensors import DATATYPES, TEXTS, takes_texts
from service.manifest import MODEL, Manifest
from service.tasks.faults import describe_value

Document = dict[str, Any]
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)


def resolve_model(state: ServiceState, name: str, version: str | None) -> Model:
    """Return the model; a version must be the one that serves, "1" or None. Raises EkibenError."""
    model = state.repository.get(name)
    current = model.manifest.version
    if version not in {None, ANY_VERSION, current}:
        raise EkibenError("unknown-model", f"{name} serves version {current}, got {describe_value(version)}")
    return model


def check_ready(state: ServiceState, name: str, version: str | None) -> str:
    """Return the name of a model that answers requests; raises EkibenError."""
    if state.draining:
        raise EkibenError("not-ready", "the service is shutting down")
    return resolve_model(state, name, version).manifest.name


def server_metadata() -> Document:
    return {"name": "ekiben", "version": "2", "extensions": list(EXTENSIONS)}


def model_metadata(manifest: Manifest) -> Document:
    """Return name, version and tensors; -1 is an axis of any size."""
    document: Document = {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [_tensor_metadata(spec) for spec in manifest.inputs],
        "outputs": [_tensor_metadata(spec) for spec in manifest.outputs],
    }
    if takes_texts(manifest):
        # Not among the inputs, all of which clients send.
        document["parameters"] = {"alternative_inputs": [_tensor_metadata(TEXTS)]}
    return document


def _tensor_metadata(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": _sizes(spec)}


def model_config(manifest: Manifest) -> Document:
    """Return Triton's model configuration.

    `dims` leave out a batch axis that comes first in every tensor. Otherwise, and without one, `max_batch_size` is 0.
    """
    is_batched = has_rows_first((*manifest.inputs, *manifest.outputs))
    return {
        "name": manifest.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": manifest.limits.max_items if is_batched else 0,
        "input": [_tensor_config(spec, is_batched=is_batched) for spec in manifest.inputs],
        "output": [_tensor_config(spec, is_batched=is_batched) for spec in manifest.outputs],
        "default_model_filename": MODEL,
        "model_transaction_policy": {"decoupled": False},
        **({"dynamic_batching": {}} if is_batched else {}),
    }


def _tensor_config(spec: TensorSpec, *, is_batched: bool) -> Document:
    sizes = _sizes(spec)[is_batched:]
    # The configuration has no tensors without axes: a number an item is a list of one that is reshaped.
    shape: Document = {"dims": sizes} if sizes else {"dims": [1], "reshape": {"shape": []}}
    return {"name": spec.name, "data_type": _config_type(spec), **shape}


def _config_type(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.dtype == "string" else f"TYPE_{DATATYPES[spec.dtype]}"


def _sizes(spec: TensorSpec) -> list[int]:
    return [-1 if isinstance(axis, str) else axis for axis in spec.shape]
