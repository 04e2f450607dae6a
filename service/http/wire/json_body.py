"""Parse a JSON body.

Invariant: only JSON as RFC 8259 defines it is accepted. NaN and Infinity, which some writers emit, are refused like any
other invalid value, with a pointer to each.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import orjson

from service.errors import EkibenError, Fault
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer

# The search for non-finite numbers runs in Python; the error of a larger body names only line and column.
MAX_SEARCHED_BYTES = 1 << 20
SEARCHED_TYPES = {float, list, dict}


def parse_json(body: bytes) -> Any:
    """Return the document.

    Raises EkibenError("malformed-json"), or "invalid-request" if non-finite numbers are the only mistake.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        faults = _non_finite_faults(body)
        if faults:
            raise invalid_request(faults) from None
        got = "an empty body" if not body.strip() else f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise EkibenError("malformed-json", f"expected a JSON object, got {got}") from None


def _non_finite_faults(body: bytes) -> list[Fault]:
    if len(body) > MAX_SEARCHED_BYTES:
        return []
    faults: list[Fault] = []
    try:
        _collect_faults(json.loads(body), [], faults)
    except (ValueError, RecursionError):
        return []
    return faults


def _collect_faults(value: Any, path: list[str | int], faults: list[Fault]) -> None:
    """Append the non-finite numbers below `path` to `faults`, up to `MAX_FAULTS`."""
    match value:
        case float() if not math.isfinite(value):
            faults.append(
                Fault(pointer=json_pointer(*path), detail=f"expected a finite number, got {describe_value(value)}")
            )
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
        if type(item) in SEARCHED_TYPES:
            path.append(key)
            _collect_faults(item, path, faults)
            path.pop()
