"""Parse a JSON body. Invariant: only JSON of RFC 8259 is accepted; a fault points at each NaN and Infinity."""

import json
import math
import sys
from contextlib import suppress
from typing import Any

import orjson

from service.errors import EkibenError, Fault
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer

# The search for non-finite numbers runs in Python; the error of a larger body names only line and column.
MAX_SEARCHED_BYTES = 1 << 20
MAX_FLOAT_BITS = sys.float_info.max_exp


def parse_json(body: bytes) -> Any:
    """Return the document; raises EkibenError "malformed-json", or "invalid-request" if only numbers are not finite."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        faults: list[Fault] = []
        with suppress(ValueError, RecursionError):
            if len(body) <= MAX_SEARCHED_BYTES:
                _collect_faults({"": json.loads(body)}, [], faults)
        if faults:
            raise invalid_request(faults) from None
        got = "an empty body" if not body.strip() else f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise EkibenError("malformed-json", f"expected a JSON object, got {got}") from None


def _is_beyond_float(value: Any) -> bool:
    """Return whether the value is a number that float64 cannot hold, or NaN or infinity."""
    if type(value) is int:
        return value.bit_length() > MAX_FLOAT_BITS
    return type(value) is float and not math.isfinite(value)


def _collect_faults(parent: dict[str, Any] | list[Any], path: list[str | int], faults: list[Fault]) -> None:
    """Append the non-finite numbers below `path` to `faults`, up to `MAX_FAULTS`."""
    for key, item in parent.items() if isinstance(parent, dict) else enumerate(parent):
        path.append(key)
        if _is_beyond_float(item):
            detail = f"expected a finite number, got {describe_value(item)}"
            faults.append(Fault(pointer=json_pointer(*path[1:]), detail=detail))
        elif type(item) in {list, dict}:
            _collect_faults(item, path, faults)
        path.pop()
        if len(faults) == MAX_FAULTS:
            return
