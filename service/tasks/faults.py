"""Errors that point at the invalid fields of a request.

Each fault holds a JSON Pointer and what is wrong there; an error lists the first MAX_FAULTS and counts the rest.
"""

import json
from collections.abc import Sequence
from typing import Any

from service.errors import EkibenError, Fault

MAX_FAULTS = 16
MAX_CHARS = 1000  # of a sentence or a pointer in an error, which may repeat a value of the request
MAX_INT_BITS = 128  # of a whole number that is quoted


def invalid_request(faults: Sequence[Fault], count: int = 0) -> EkibenError:
    """Return an error with at most MAX_FAULTS of the faults; `count` is their number, if these are not all."""
    first, others = faults[0], (count or len(faults)) - 1
    more = f" (and {others} more)" if others else ""
    prefix = f"{first.pointer}: " if first.pointer else ""
    return EkibenError("invalid-request", f"{prefix}{first.detail}{more}", tuple(faults[:MAX_FAULTS]))


def type_fault(pointer: str, expected: str, got: Any) -> EkibenError:
    """Return the error of one invalid value: `expected` in words, `got` the value in the request."""
    return fault(pointer, f"expected {expected}, got {describe_value(got)}")


def fault(pointer: str, detail: str) -> EkibenError:
    """Return the error of one invalid place in the request."""
    return invalid_request([Fault(pointer=pointer, detail=detail)])


def json_pointer(*parts: str | int) -> str:
    """Return the JSON Pointer (RFC 6901) of these keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def cut(text: str) -> str:
    """Return at most `MAX_CHARS` of a text for an error."""
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def describe_value(value: Any) -> str:
    """Return a JSON value in a few words; lists and long strings by kind and size."""
    match value:
        case str():
            return repr(value) if len(value) <= 40 else f"a string of {len(value)} characters"
        case int() if value.bit_length() > MAX_INT_BITS:
            return f"a whole number of {value.bit_length()} bits"
        case None | int() | float():
            # json.dumps spells NaN and Infinity as JSON writers do.
            return json.dumps(value)
        case list():
            return "an empty list" if not value else f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"
