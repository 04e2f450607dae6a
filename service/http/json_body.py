"""JSON bytes to a document.

Invariant: what is returned is JSON as RFC 8259 has it. The NaN and Infinity that some writers emit are refused like any
other wrong value: with a pointer at each.
"""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from service.errors import EkibenError, Fault
from service.tasks.body import MAX_FAULTS, describe, invalid, pointer

MAX_SEARCHED_BYTES = 1 << 20  # the search is Python's; a larger body is told the line and column only


def read_json(body: bytes) -> Any:
    """Raises EkibenError("malformed-json"), or ("invalid-request") if all that is wrong is numbers that are none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        faults = _not_finite(body)
        if faults:
            raise invalid(faults) from None
        got = "an empty body" if not body.strip() else f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise EkibenError("malformed-json", f"expected a JSON object, got {got}") from None


def _not_finite(body: bytes) -> list[Fault]:
    if len(body) > MAX_SEARCHED_BYTES:
        return []
    try:
        places = ((path, value) for path, value in _floats(json.loads(body), ()) if not math.isfinite(value))
        return [
            Fault(pointer=pointer(*path), detail=f"expected a finite number, got {describe(value)}")
            for path, value in islice(places, MAX_FAULTS)
        ]
    except (ValueError, RecursionError):
        return []


def _floats(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], float]]:
    match value:
        case float():
            yield path, value
        case list():
            for i, item in enumerate(value):
                yield from _floats(item, (*path, i))
        case dict():
            for key, item in value.items():
                yield from _floats(item, (*path, key))
