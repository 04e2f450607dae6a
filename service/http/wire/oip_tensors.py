"""Tensors of the Open Inference Protocol: numbers in JSON, or raw little-endian bytes after the JSON.

Invariant: an array has exactly the type and shape that its entry declares and the model requires; every byte after the
JSON belongs to one tensor. Numbers go from the JSON parser to the array without a Python object in between.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.contract.tensors import BATCH, NUMPY_DTYPES, Dtype, TensorSpec, tensor
from service.errors import EkibenError
from service.http.wire.oip_parameters import parse_object, parse_parameters
from service.manifest import Manifest
from service.tasks.faults import describe_value, fault, type_fault
from service.tasks.tensors import shape_mismatch

Array = npt.NDArray[Any]
DATATYPES: dict[Dtype, str] = {name: name.upper().replace("FLOAT", "FP") for name in NUMPY_DTYPES}
DATATYPES["string"] = "BYTES"
DATATYPE_OF = {NUMPY_DTYPES[name]: datatype for name, datatype in DATATYPES.items()}
BYTES = NUMPY_DTYPES["string"]
LENGTH_BYTES = 4  # before each text that is sent as bytes, little-endian
MAX_AXIS_SIZE = 1 << 31
INPUT_FIELDS = {"name", "shape", "datatype", "parameters", "data"}
# What a model that reads texts also takes, in place of the ids and lengths that its tokenizer gives.
TEXTS = tensor("string", "texts", BATCH)
assert sys.byteorder == "little" and array("l").itemsize == 8 and array("f").itemsize == 4  # noqa: PT018


class InputTensor(NamedTuple):
    """One entry of `inputs` without its `data`."""

    name: str
    where: str  # its JSON pointer
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size_bytes: int | None  # of its bytes after the JSON; None: its numbers are in the JSON


def pop_data(document: Any) -> list[Any]:
    """Remove the `data` of every entry of `inputs` and return them; None for an entry without `data`."""
    if type(document) is not dict:
        raise type_fault("", "a JSON object", document)
    entries = document.get("inputs")
    if type(entries) is not list:
        return []
    return [entry.pop("data", None) if type(entry) is dict else None for entry in entries]


def takes_texts(manifest: Manifest) -> bool:
    """Tell whether a request may hold `TEXTS` in place of the inputs of the model."""
    return manifest.reader.kind == "text" and manifest.head.kind != "language-model"


def parse_inputs(entries: Any, manifest: Manifest) -> tuple[InputTensor, ...]:
    """Parse the entries of `inputs`: each input of the model exactly once, or `TEXTS`."""
    if type(entries) is not list or not entries:
        raise type_fault("/inputs", "a list of tensors", entries)
    specs = {spec.name: spec for spec in manifest.inputs}
    if takes_texts(manifest) and any(type(entry) is dict and entry.get("name") == TEXTS.name for entry in entries):
        specs = {TEXTS.name: TEXTS}
    tensors: dict[str, InputTensor] = {}
    for number, value in enumerate(entries):
        where = f"/inputs/{number}"
        entry = parse_object(value, INPUT_FIELDS, where, "an object with name, shape, datatype and data")
        name = entry.get("name")
        if type(name) is not str or name not in specs:
            raise type_fault(f"{where}/name", f"one of {', '.join(specs)}", name)
        if name in tensors:
            raise fault(f"{where}/name", f"{name!r} was given already, at {tensors[name].where}")
        tensors[name] = _parse_tensor(entry, specs[name], where)
    absent = ", ".join(name for name in specs if name not in tensors)
    if absent:
        raise fault("/inputs", f"missing: {absent}; {manifest.name} takes {', '.join(specs)}")
    return tuple(tensors.values())


def build_arrays(tensors: Sequence[InputTensor], data: Sequence[Any], body: bytes, offset: int) -> dict[str, Array]:
    """Build the array of each tensor from its `data`, or from the bytes of the body after `offset`, in order."""
    arrays: dict[str, Array] = {}
    at = offset
    for (name, where, dtype, shape, size_bytes), numbers in zip(tensors, data, strict=True):
        if size_bytes is None:
            arrays[name] = _array_from_json(numbers, dtype, shape, f"{where}/data", body[:offset])
            continue
        if numbers is not None:
            raise fault(f"{where}/data", "given twice: as JSON numbers and as bytes (binary_data_size)")
        if dtype == BYTES:
            arrays[name] = _texts_from_bytes(body[at : at + size_bytes], shape, where)
        elif 0 < size_bytes <= len(body) - at:
            arrays[name] = np.frombuffer(body, dtype, size_bytes // dtype.itemsize, at).reshape(shape)
        elif not size_bytes:
            arrays[name] = np.empty(shape, dtype)
        at += size_bytes
    if at != len(body):
        raise fault("/inputs", f"expected {at} bytes of JSON and tensors, got {len(body)}")
    return arrays


def _parse_tensor(entry: dict[str, Any], spec: TensorSpec, where: str) -> InputTensor:
    if entry.get("datatype") != DATATYPES[spec.dtype]:
        raise type_fault(f"{where}/datatype", DATATYPES[spec.dtype], entry.get("datatype"))
    shape, dtype = entry.get("shape"), spec.numpy_dtype
    if type(shape) is not list:
        raise type_fault(f"{where}/shape", "a list of sizes", shape)
    for number, size in enumerate(shape):
        if type(size) is not int or not 0 <= size < MAX_AXIS_SIZE:
            raise type_fault(f"{where}/shape/{number}", f"a size of 0 to {MAX_AXIS_SIZE - 1}", size)
    if len(shape) == 2 and len(spec.shape) == shape[1] == 1:
        shape = shape[:1]  # MLServer's codecs write a list of items as [items, 1]
    problem = shape_mismatch(shape, spec)
    if problem is not None:
        raise fault(f"{where}/shape", problem)
    parameters = parse_parameters(entry, {"binary_data_size"}, where)
    expected, size_bytes = prod(shape) * dtype.itemsize, parameters.get("binary_data_size")
    if dtype == BYTES and type(size_bytes) is int and 0 <= size_bytes < MAX_AXIS_SIZE:
        expected = size_bytes  # the lengths are among the bytes
    if size_bytes is not None and (type(size_bytes) is not int or size_bytes != expected):
        raise type_fault(f"{where}/parameters/binary_data_size", f"{expected} bytes for shape {shape}", size_bytes)
    return InputTensor(spec.name, where, dtype, tuple(shape), size_bytes)


def _array_from_json(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], where: str, head: bytes) -> Array:
    if isinstance(data, np.ndarray):
        return _narrow(data, dtype, shape, where)
    flat = _flatten(data, shape, where)
    if dtype.kind in "bO":
        kind, expected = (bool, "true or false") if dtype.kind == "b" else (str, "a text")
        for number, value in enumerate(flat):
            if type(value) is not kind:
                raise fault(where, f"expected {expected}, got {describe_value(value)} (entry {number})")
        return _checked_unicode(np.array(flat, dtype).reshape(shape), where)
    # The letters are searched first: that is faster than to search the words, and most requests contain neither.
    may_hold_bools = (b"r" in head and b"true" in head) or (b"l" in head and b"false" in head)
    try:
        if may_hold_bools and bool in set(map(type, flat)):
            raise TypeError
        raw: Any = bytes(flat) if dtype == np.uint8 else _packed(flat, dtype)
    except (TypeError, ValueError, OverflowError):
        raise _entry_error(flat, dtype, where) from None
    return np.frombuffer(raw, dtype).reshape(shape)


def _packed(flat: list[Any], dtype: np.dtype[Any]) -> Any:
    """Return the numbers as a buffer of `dtype`. Raises TypeError or OverflowError."""
    if dtype != np.float16:
        return array(dtype.char, flat)
    # Numbers beyond float16 become infinite, which `check_values` refuses later.
    with np.errstate(over="ignore"):
        return np.array(array("d", flat)).astype(dtype)


def _texts_from_bytes(content: bytes, shape: tuple[int, ...], where: str) -> Array:
    texts = unpack_texts(content, where)
    if len(texts) != prod(shape):
        raise fault(where, f"expected {prod(shape)} texts for shape {list(shape)}, got {len(texts)}")
    return np.array(texts, BYTES).reshape(shape)


def unpack_texts(content: bytes, where: str) -> list[str]:
    """Return the texts of `content`, each after its length. Raises EkibenError("invalid-request")."""
    texts: list[str] = []
    at = 0
    try:
        while at < len(content):
            end = at + LENGTH_BYTES + int.from_bytes(content[at : at + LENGTH_BYTES], "little")
            if end > len(content):
                raise fault(where, f"text {len(texts)} ends after byte {end}, the tensor has {len(content)} bytes")
            texts.append(content[at + LENGTH_BYTES : end].decode())
            at = end
    except UnicodeDecodeError as error:
        raise fault(where, f"text {len(texts)} is not UTF-8: {error.reason} at byte {error.start}") from None
    return texts


def pack_texts(texts: Array) -> bytes:
    """Return texts as OIP sends them: each after its length in 4 bytes, little-endian."""
    rows = [text.encode() for text in texts.ravel().tolist()]
    return b"".join(len(row).to_bytes(LENGTH_BYTES, "little") + row for row in rows)


def _checked_unicode(values: Array, where: str) -> Array:
    if values.dtype == BYTES:
        for number, text in enumerate(values.ravel().tolist()):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise fault(where, f"expected Unicode text, got half a surrogate pair (entry {number})") from None
    return values


def _narrow(data: Array, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    """Convert an array of the widest type of its kind to `dtype` and `shape`."""
    if data.size != prod(shape):
        raise _count_error(data.tolist(), shape, where)
    if dtype.kind in "iu" and data.size and not _is_in_range(data, dtype):
        raise _entry_error(data.tolist(), dtype, where)
    # A float that overflows becomes infinite, which `check_values` refuses later.
    with np.errstate(over="ignore"):
        return data.astype(dtype, copy=False).reshape(shape)


def _is_in_range(data: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return int(data.max()) <= limits.max and int(data.min()) >= limits.min


def _flatten(data: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    """Return the entries in order, from a flat list or from lists nested as `shape` requires."""
    if type(data) is not list:
        raise type_fault(where, "a list of numbers", data)
    if not (data and type(data[0]) is list):
        if len(data) != prod(shape):
            raise _count_error(data, shape, where)
        return data
    level: list[Any] = [data]
    for size in shape:
        if not level:
            return level
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise fault(where, f"expected a flat list, or lists nested as shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def _count_error(flat: list[Any], shape: tuple[int, ...], where: str) -> EkibenError:
    return type_fault(where, f"{prod(shape)} numbers for shape {list(shape)}", flat)


def _entry_error(flat: list[Any], dtype: np.dtype[Any], where: str) -> EkibenError:
    """Return the error of the first entry that does not fit `dtype`."""
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    expected = f"a whole number of {limits.min} to {limits.max}" if limits else "a number"
    for number, value in enumerate(flat):
        is_valid = type(value) is int and limits.min <= value <= limits.max if limits else type(value) in {int, float}
        if not is_valid:
            return fault(where, f"expected {expected}, got {describe_value(value)} (entry {number})")
    return fault(where, f"expected numbers that fit {DATATYPE_OF[dtype]}")
