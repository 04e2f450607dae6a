"""Compares two answers to one request.

Texts, whole numbers and the form must be equal, other numbers within a tolerance. What names the version, and the
labels below the first, of which unlikely ones change places easily, are left out.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from service.http.wire.messages import JSON, Response
from service.http.wire.oip_tensors import BYTES, DATATYPE_OF, Array, unpack_texts
from service.tasks.faults import describe_value

VERSIONS = frozenset({"version", "model_version"})
CHUNK = 1 << 16  # numbers that are compared at a time
MAX_QUOTED_CHARS = 40
DTYPES = {datatype: dtype for dtype, datatype in DATATYPE_OF.items()}


def first_difference(serving: Any, candidate: Any, tolerance: float) -> str | None:
    """Say where the content of the candidate's answer differs from that of the serving version; None if nowhere.

    `tolerance` is the largest difference of two numbers that counts as none, relative to those above 1.
    """
    return next(_differences(serving, candidate, tolerance, ""), None)


def read_answer(response: Response) -> Any:
    """The content of an answer: JSON, and the arrays of the Open Inference Protocol that are sent as bytes."""
    if response.content_type == JSON:
        return orjson.loads(response.body)
    size = int(dict(response.headers)["inference-header-content-length"])
    document, offset = orjson.loads(response.body[:size]), size
    for output in document["outputs"]:
        if num_bytes := output.get("parameters", {}).get("binary_data_size"):
            output["data"] = read_values(output["datatype"], response.body[offset : offset + num_bytes])
            output["parameters"], offset = {}, offset + num_bytes
    return document


def read_values(datatype: str, content: bytes) -> Array | list[str]:
    """The numbers or texts of a tensor that is sent as bytes. Raises EkibenError for broken texts."""
    dtype = DTYPES[datatype]
    return unpack_texts(content, "") if dtype == BYTES else np.frombuffer(content, dtype)


def _differences(left: Any, right: Any, tolerance: float, pointer: str) -> Iterator[str]:
    match left, right:
        case dict(), dict():
            for key in sorted((left.keys() | right.keys()) - _uncompared(left, pointer)):
                if key in left and key in right:
                    yield from _differences(left[key], right[key], tolerance, f"{pointer}/{key}")
                else:
                    yield f"{pointer}/{key} is in one answer only"
        case list(), list():
            if len(left) != len(right):
                yield f"{pointer} has {len(left)} and {len(right)} values"
            for number, pair in enumerate(zip(left, right, strict=False)):
                yield from _differences(*pair, tolerance, f"{pointer}/{number}")
        case np.ndarray(), np.ndarray():
            yield from _array_differences(left, right, tolerance, pointer)
        case (float(), int() | float()) | (int(), float()):
            if not abs(left - right) <= tolerance * max(1.0, abs(left)) and left != right:
                yield f"{pointer} is {left:g}, the candidate says {right:g}"
        case _:
            if left != right:
                one, other = _describe_both(left, right)
                yield f"{pointer} is {one}, the candidate says {other}"


def _uncompared(content: dict[str, Any], pointer: str) -> frozenset[str]:
    """The fields of an object that are left out: outputs and values of models may have the same names."""
    if not pointer:
        return VERSIONS
    is_prediction = pointer.count("/") == 2
    return frozenset({"top"}) if is_prediction and "label" in content else frozenset()


def _describe_both(left: Any, right: Any) -> tuple[str, str]:
    """Describe two values that differ, so that what differs is seen."""
    if not (isinstance(left, str) and isinstance(right, str)):
        return describe_value(left), describe_value(right)
    pairs = enumerate(zip(left, right, strict=False))
    start = next((number for number, (one, other) in pairs if one != other), min(len(left), len(right)))
    return _shorten(left, start), _shorten(right, start)


def _shorten(text: str, start: int) -> str:
    """Quote a text, of a long one the characters around `start`."""
    if len(text) <= MAX_QUOTED_CHARS:
        return repr(text)
    first = max(0, min(start - MAX_QUOTED_CHARS // 2, len(text) - MAX_QUOTED_CHARS))
    last = first + MAX_QUOTED_CHARS
    before, after = "…" if first else "", "…" if last < len(text) else ""
    return f"{before}{text[first:last]!r}{after} ({len(text)} characters)"


def _array_differences(left: Array, right: Array, tolerance: float, pointer: str) -> Iterator[str]:
    """Compare arrays of one axis as lists are compared; Python sees only the numbers that differ."""
    if left.size != right.size:
        yield f"{pointer} has {left.size} and {right.size} values"
    size = min(left.size, right.size)
    for first in range(0, size, CHUNK):
        part = slice(first, min(first + CHUNK, size))
        one, other = left[part], right[part]
        differs = one != other
        if "f" in {one.dtype.kind, other.dtype.kind}:
            wide = one.astype(np.float64)
            with np.errstate(invalid="ignore"):  # infinities
                differs &= ~(np.abs(wide - other) <= tolerance * np.maximum(1.0, np.abs(wide)))
        for number in np.flatnonzero(differs).tolist():
            yield from _differences(one[number].item(), other[number].item(), tolerance, f"{pointer}/{first + number}")
