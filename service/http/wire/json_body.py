"""JSON bytes to a document.

Invariant: what is returned is JSON as RFC 8259 has it. The NaN and Infinity that some writers emit are refused like any
other wrong value: with a pointer at each.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import orjson

from service.errors import EkibenError, Fault
from service.tasks.body import MAX_FAULTS, describe, invalid, pointer

MAX_SEARCHED_BYTES = 1 << 20  # the search is Python's; a larger body is told the line and column only
SEARCHED = {float, list, dict}


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
    faults: list[Fault] = []
    try:
        _collect(json.loads(body), [], faults)
    except (ValueError, RecursionError):
        return []
    return faults


def _collect(value: Any, path: list[str | int], faults: list[Fault]) -> None:
    """Add the first numbers below `path` that are not finite, as far as there is room for them."""
    match value:
        case float() if not math.isfinite(value):
            faults.append(Fault(pointer=pointer(*path), detail=f"expected a finite number, got {describe(value)}"))
            return
        case list():
            items: Iterable[tuple[str | int, Any]] = enumerate(value)
        case dict():
            items = value.items()
        case _:
            return
    for key, item in items:
        if len(faults) == MAX_FAULTS:
            return
        if type(item) in SEARCHED:
            path.append(key)
            _collect(item, path, faults)
            path.pop()
