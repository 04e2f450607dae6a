"""Named tensors as nested lists: numbers, true and false, or strings, of the shapes and types that a model declares.

Invariant: tensors that are read pass the checks of the Open Inference Protocol, which shares them.
"""

from typing import Any

import numpy as np

from service.contract.tensors import TensorSpec, from_rows, to_rows
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
    rows = read_tensors(given, manifest, "/tensors")
    num_rows = len(next(iter(rows.values())))
    return Payload(pointer="/tensors", groups=(Group(rows, range(num_rows)),), is_list=False)


def read_tensors(given: Any, manifest: Manifest, pointer: str) -> dict[str, Array]:
    """Return every input of the model as rows: the batch axis, if there is one, first.

    Raises EkibenError("invalid-request").
    """
    _check_names(given, manifest, pointer)
    tensors = {
        spec.name: parse_tensor(given[spec.name], len(spec.shape), spec.dtype, pointer + json_pointer(spec.name))
        for spec in manifest.inputs
    }
    return _checked_rows(tensors, manifest, pointer)


def read_item(given: Any, manifest: Manifest, pointer: str) -> dict[str, Array]:
    """Return every input for one item, whose nested lists lack the batch axis, as one row; raises as `read_tensors`."""
    _check_names(given, manifest, pointer)
    rows = {
        spec.name: parse_tensor(given[spec.name], len(spec.row_shape), spec.dtype, pointer + json_pointer(spec.name))
        for spec in manifest.inputs
    }
    tensors = {spec.name: from_rows(rows[spec.name][None], spec) for spec in manifest.inputs}
    return _checked_rows(tensors, manifest, pointer)


def describe(spec: TensorSpec) -> str:
    """Return in words what a tensor is."""
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]" if spec.shape else f"one {spec.dtype}"


def _check_names(given: Any, manifest: Manifest, pointer: str) -> None:
    """Raise EkibenError unless an object has exactly the names of the inputs."""
    if type(given) is not dict:
        raise type_fault(pointer, f"an object with {_names(manifest)}", given)
    specs = {spec.name: spec for spec in manifest.inputs}
    if (unknown := next((name for name in given if name not in specs), None)) is not None:
        raise fault(pointer + json_pointer(unknown), f"unknown tensor; {manifest.name} reads {_names(manifest)}")
    if (absent := next((name for name in specs if name not in given), None)) is not None:
        raise fault(pointer + json_pointer(absent), f"this tensor is required: expected {describe(specs[absent])}")


def _checked_rows(tensors: dict[str, Array], manifest: Manifest, pointer: str) -> dict[str, Array]:
    """Check shapes and values of tensors of the declared axes, and return their rows."""
    pointers = {spec.name: pointer + json_pointer(spec.name) for spec in manifest.inputs}
    for spec in manifest.inputs:
        if problem := shape_mismatch(tensors[spec.name].shape, spec):
            raise fault(pointers[spec.name], problem)
    check_values(tensors, value_rules({name: value.shape for name, value in tensors.items()}, manifest, pointers))
    return {spec.name: np.ascontiguousarray(to_rows(tensors[spec.name], spec)) for spec in manifest.inputs}


def _names(manifest: Manifest) -> str:
    return ", ".join(f"{spec.name!r}: {describe(spec)}" for spec in manifest.inputs)
