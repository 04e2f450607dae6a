"""Tensors of the Open Inference Protocol on the wire: JSON numbers, or raw little-endian bytes behind the JSON.

Invariant: an array has exactly the type and shape that its entry announces and the model declares; every byte behind
the JSON belongs to one tensor. Numbers go from the JSON parser to the array without a Python object in between.
"""

import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle import Manifest, TensorSpec
from service.errors import EkibenError
from service.tasks.body import describe, pointer, refuse, wrong
from service.tasks.tensors import DTYPES, shape_problem

Array = npt.NDArray[Any]
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
DATATYPE_OF = {np.dtype(name): datatype for name, datatype in DATATYPES.items()}
MAX_UINT8, MAX_SIZE = 255, 1 << 31
INPUT_FIELDS = {"name", "shape", "datatype", "parameters", "data"}
assert sys.byteorder == "little" and array("l").itemsize == 8 and array("f").itemsize == 4  # noqa: PT018


class Tensor(NamedTuple):
    """One entry of `inputs` without its `data`; `size` bytes follow the JSON, or its numbers are in the JSON: None."""

    name: str
    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int | None


def take_data(document: Any) -> list[Any]:
    """Remove the `data` of every entry of `inputs` from a document; None where there is none."""
    entries = document.get("inputs") if type(document) is dict else None
    if type(entries) is not list:
        return []
    return [entry.pop("data", None) if type(entry) is dict else None for entry in entries]


def read_inputs(entries: Any, manifest: Manifest) -> list[Tensor]:
    """The entries of `inputs`, each input of the model once."""
    if type(entries) is not list or not entries:
        raise wrong("/inputs", "a list of tensors", entries)
    specs = {spec.name: spec for spec in manifest.inputs}
    tensors: list[Tensor] = []
    places: dict[str, str] = {}
    for number, entry in enumerate(entries):
        where = f"/inputs/{number}"
        spec = _spec_of(entry, specs, places, where)
        shape, dtype = _shape_of(entry, spec, where), DTYPES[spec.dtype]
        size, expected = _binary_size(entry, where), prod(shape) * dtype.itemsize
        if size not in {None, expected}:
            raise wrong(f"{where}/parameters/binary_data_size", f"{expected} for shape {list(shape)}", size)
        tensors.append(Tensor(spec.name, where, dtype, shape, size))
        places[spec.name] = where
    missing = [name for name in specs if name not in places]
    if missing:
        raise refuse("/inputs", f"missing: {', '.join(missing)}; {manifest.name} takes {', '.join(specs)}")
    return tensors


def arrays(tensors: Sequence[Tensor], data: Sequence[Any], body: bytes, offset: int) -> dict[str, Array]:
    """The tensors as arrays: of their `data`, or of the bytes that begin at `offset` of the body, in their order."""
    found: dict[str, Array] = {}
    at = offset
    for (name, where, dtype, shape, size), numbers in zip(tensors, data, strict=True):
        if size is None:
            found[name] = _from_json(numbers, dtype, shape, f"{where}/data", body[:offset])
            continue
        if numbers is not None:
            raise refuse(f"{where}/data", "given twice: in JSON and, by binary_data_size, as bytes")
        if 0 < size <= len(body) - at:
            found[name] = np.frombuffer(body, dtype, size // dtype.itemsize, at).reshape(shape)
        elif not size:
            found[name] = np.empty(shape, dtype)
        at += size
    if at != len(body):
        raise refuse("/inputs", f"expected {at} bytes of JSON and tensors, got {len(body)}")
    return found


def output_entry(name: str, value: Array) -> dict[str, Any]:
    """An output as it is announced; its numbers follow as `data`, or as bytes."""
    return {"name": name, "datatype": DATATYPE_OF[value.dtype], "shape": value.shape}


def check_fields(document: dict[str, Any], known: set[str], where: str) -> None:
    """Raises EkibenError("invalid-request") that names a field which is not among the `known`."""
    if not document.keys() <= known:
        unknown = min(document.keys() - known)
        raise refuse(where + pointer(unknown), f"unknown field; the fields are {', '.join(sorted(known))}")


def _spec_of(entry: Any, specs: Mapping[str, TensorSpec], seen: Mapping[str, str], where: str) -> TensorSpec:
    if type(entry) is not dict:
        raise wrong(where, "a tensor: an object with name, shape, datatype and data", entry)
    check_fields(entry, INPUT_FIELDS, where)
    name = entry.get("name")
    if type(name) is not str or name not in specs:
        raise wrong(f"{where}/name", f"one of {', '.join(specs)}", name)
    if name in seen:
        raise refuse(f"{where}/name", f"{name!r} was given already, at {seen[name]}")
    spec = specs[name]
    if entry.get("datatype") != DATATYPES[spec.dtype]:
        raise wrong(f"{where}/datatype", DATATYPES[spec.dtype], entry.get("datatype"))
    return spec


def _shape_of(entry: dict[str, Any], spec: TensorSpec, where: str) -> tuple[int, ...]:
    shape = entry.get("shape")
    if type(shape) is not list:
        raise wrong(f"{where}/shape", "a list of sizes", shape)
    for number, size in enumerate(shape):
        if type(size) is not int or not 0 <= size < MAX_SIZE:
            raise wrong(f"{where}/shape/{number}", f"a size of 0 to {MAX_SIZE - 1}", size)
    problem = shape_problem(shape, spec)
    if problem is not None:
        raise refuse(f"{where}/shape", problem)
    return tuple(shape)


def _binary_size(entry: dict[str, Any], where: str) -> int | None:
    """How many bytes behind the JSON are this tensor's; None if it is in the JSON."""
    parameters = entry.get("parameters")
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise wrong(f"{where}/parameters", "an object", parameters)
    unknown = parameters.keys() - {"binary_data_size"}
    if unknown:
        raise refuse(f"{where}/parameters{pointer(min(unknown))}", "not supported; an input takes binary_data_size")
    if "binary_data_size" not in parameters:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise wrong(f"{where}/parameters/binary_data_size", "a number of bytes", size)
    return size


def _from_json(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], where: str, head: bytes) -> Array:
    if isinstance(data, np.ndarray):
        return _from_array(data, dtype, shape, where)
    flat = _flat(data, shape, where)
    # one letter is found faster than a word, and is rare in what surrounds numbers
    may_hold_bools = (b"r" in head and b"true" in head) or (b"l" in head and b"false" in head)
    try:
        if may_hold_bools and bool in set(map(type, flat)):
            raise TypeError
        raw: Any = bytes(flat) if dtype == np.uint8 else array(dtype.char, flat)
    except (TypeError, ValueError, OverflowError):
        raise _wrong_entry(flat, dtype, where) from None
    return np.frombuffer(raw, dtype).reshape(shape)


def _from_array(data: Array, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    """From numbers of the widest type of their kind."""
    if data.size != prod(shape):
        raise _wrong_size(data.tolist(), shape, where)
    if dtype == np.uint8 and data.size and data.max() > MAX_UINT8:
        raise _wrong_entry(data.tolist(), dtype, where)
    with np.errstate(over="ignore"):  # numbers that are not finite are found with all others
        return data.astype(dtype, copy=False).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    """The entries in order, from a flat list or from lists nested as `shape` says."""
    if type(data) is not list:
        raise wrong(where, "a list of numbers", data)
    if not (data and type(data[0]) is list):
        if len(data) != prod(shape):
            raise _wrong_size(data, shape, where)
        return data
    level: list[Any] = [data]
    for size in shape:
        if not level:
            return level
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise refuse(where, f"expected a flat list, or lists nested as shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def _wrong_size(flat: list[Any], shape: tuple[int, ...], where: str) -> EkibenError:
    return wrong(where, f"{prod(shape)} numbers for shape {list(shape)}", flat)


def _wrong_entry(flat: list[Any], dtype: np.dtype[Any], where: str) -> EkibenError:
    is_float = dtype == np.float32
    least, most = (0, MAX_UINT8) if dtype == np.uint8 else (-(1 << 63), (1 << 63) - 1)
    for number, value in enumerate(flat):
        if type(value) is not int and (type(value) is not float or not is_float):
            expected = "a number" if is_float else "a whole number"
        elif not is_float and not least <= value <= most:
            expected = f"{least} to {most}"
        else:
            continue
        return refuse(where, f"expected {expected}, got {describe(value)} (entry {number})")
    return refuse(where, f"expected numbers that fit {DATATYPE_OF[dtype]}")
