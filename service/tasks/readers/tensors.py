"""Named tensors as nested lists: numbers, true and false, or strings, of the shapes and types that a model declares.

Invariant: tensors that are read pass the checks of the Open Inference Protocol, which shares them.
"""

from typing import Any

from service.contract.tensors import TensorSpec
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.codecs.json_tensors import parse_tensor
from service.tasks.faults import fault, json_pointer, type_fault
from service.tasks.readers.payload import Fields, Group, Payload
from service.tasks.tensors import Array, check_values, shape_mismatch, value_rules

FIELD = "tensors"


async def read(model: Model, _runner: Runner, fields: Fields, _context: RequestContext) -> Payload:
    """Read all tensors of a request; the rows of a batch axis are its items."""
    given, manifest = fields[FIELD], model.manifest
    if given is None:
        raise fault("/tensors", f"this field is required: {manifest.name} reads {_names(manifest)}")
    tensors = read_tensors(given, manifest, "/tensors")
    group = Group(tensors, range(num_rows(tensors, manifest)))
    return Payload(pointer="/tensors", groups=(group,), is_list=False)


def read_tensors(given: Any, manifest: Manifest, pointer: str) -> dict[str, Array]:
    """Return every input of the model, batch axis included; raises EkibenError("invalid-request")."""
    if type(given) is not dict:
        raise type_fault(pointer, f"an object with {_names(manifest)}", given)
    specs = {spec.name: spec for spec in manifest.inputs}
    if unknown := next((name for name in given if name not in specs), None):
        raise fault(pointer + json_pointer(unknown), f"unknown tensor; {manifest.name} reads {_names(manifest)}")
    if absent := next((name for name in specs if name not in given), None):
        raise fault(pointer + json_pointer(absent), f"this tensor is required: expected {describe(specs[absent])}")
    pointers = {name: pointer + json_pointer(name) for name in specs}
    tensors = {name: _read_one(given[name], spec, pointers[name]) for name, spec in specs.items()}
    check_values(tensors, value_rules({name: value.shape for name, value in tensors.items()}, manifest, pointers))
    return tensors


def read_item(given: Any, manifest: Manifest, pointer: str) -> dict[str, Array]:
    """Return every input for one item, whose nested lists lack the batch axis, as a batch of one."""
    if type(given) is not dict:
        raise type_fault(pointer, f"an object with {_names(manifest)}", given)
    batch = {}
    for name, value in given.items():
        spec = next((spec for spec in manifest.inputs if spec.name == name), None)
        batch[name] = value if spec is None else _with_batch_axis(value, spec)
    return read_tensors(batch, manifest, pointer)


def num_rows(tensors: dict[str, Array], manifest: Manifest) -> int:
    """Return the size of the batch axis; 1 for a model that has none."""
    batched = ((spec.name, spec.shape.index("batch")) for spec in manifest.inputs if "batch" in spec.shape)
    name, axis = next(batched, (None, 0))
    return 1 if name is None else int(tensors[name].shape[axis])


def describe(spec: TensorSpec) -> str:
    """Return in words what a tensor is."""
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]" if spec.shape else f"one {spec.dtype}"


def _read_one(value: Any, spec: TensorSpec, pointer: str) -> Array:
    tensor = parse_tensor(value, len(spec.shape), spec.dtype, pointer)
    if problem := shape_mismatch(tensor.shape, spec):
        raise fault(pointer, problem)
    return tensor


def _with_batch_axis(value: Any, spec: TensorSpec) -> Any:
    """Put a list around the part of each nested list that the batch axis would enclose."""

    def wrap(part: Any, depth: int) -> Any:
        if depth == 0:
            return [part]
        return [wrap(item, depth - 1) for item in part] if type(part) is list else part

    return wrap(value, spec.shape.index("batch")) if "batch" in spec.shape else value


def _names(manifest: Manifest) -> str:
    return ", ".join(f"{spec.name!r}: {describe(spec)}" for spec in manifest.inputs)
