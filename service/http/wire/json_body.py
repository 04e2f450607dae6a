"""Parse a JSON body.

Invariant: only JSON of RFC 8259 is accepted, without two members of one name in an object; a fault points at each NaN
and Infinity."""

import json
import math
import sys
from collections import deque
from contextlib import suppress
from typing import Any

import orjson

from service.errors import EkibenError, Fault
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer

# The search for non-finite numbers runs in Python; the error of a larger body names only line and column.
MAX_SEARCHED_BYTES = 1 << 20
PARENTS = frozenset({dict, list})
STRINGS_AND_PARENTS = frozenset({str, dict, list})
MAX_FLOAT_BITS = sys.float_info.max_exp


def parse_json(body: bytes) -> Any:
    """Return the document; raises EkibenError "malformed-json", or "invalid-request" if only numbers are not finite."""
    try:
        document = orjson.loads(body)
        if not has_unique_names(document, body):
            check_names(body)
        return document
    except orjson.JSONDecodeError as error:
        faults: list[Fault] = []
        with suppress(ValueError, RecursionError):
            if len(body) <= MAX_SEARCHED_BYTES:
                _collect_faults({"": json.loads(body)}, [], faults)
        if faults:
            raise invalid_request(faults) from None
        raise EkibenError("malformed-json", f"expected a JSON object, got {_describe(body, error)}") from None


def _describe(body: bytes, error: orjson.JSONDecodeError) -> str:
    """What is wrong with a body that is no JSON, and where."""
    if not body.strip():
        return "an empty body"
    try:
        body.decode()
    except UnicodeDecodeError as invalid:  # for which orjson names the first column
        return f"a body that is not UTF-8: {invalid.reason} at byte {invalid.start}"
    return f"{error.msg} at line {error.lineno}, column {error.colno}"


def has_unique_names(document: Any, body: bytes) -> bool:
    """Return whether no object of the body has two members of one name, of which `document` has only one.

    Every member has a colon, so the names are unique if there are as many colons as members, or as members and colons
    in strings. False may also mean that a string spells a colon as an escape.
    """
    if b"\\" in body and (b"\\u003a" in body or b"\\u003A" in body):
        return False
    num_colons, num_objects = body.count(b":"), body.count(b"{")
    num_members, parents = 0, deque((document,))
    while parents and num_objects > 0:  # a list behind the last object, which may be long, is not looked through
        parent = parents.popleft()
        if type(parent) is dict:
            num_members += len(parent)
            num_objects -= 1
            parents.extend([value for value in parent.values() if type(value) in PARENTS])
        elif type(parent) is list:
            parents.extend([value for value in parent if type(value) in PARENTS])
    return num_colons == num_members or num_colons == _count_colons(document)


def _count_colons(document: Any) -> int:
    """Return the number of members of objects, and of colons in their names and in strings."""
    num_colons, values = 0, [document]
    while values:
        value = values.pop()
        if type(value) is str:
            num_colons += value.count(":")
        elif type(value) is dict:
            num_colons += len(value) + sum(name.count(":") for name in value)
            values.extend([item for item in value.values() if type(item) in STRINGS_AND_PARENTS])
        elif type(value) is list:
            values.extend([item for item in value if type(item) in STRINGS_AND_PARENTS])
    return num_colons


class _Members(list[tuple[str, Any]]):
    """The members of an object, with names that may occur twice."""


def check_names(body: bytes) -> None:
    """Raise EkibenError for a name that an object of the body, which is JSON, has twice, if any."""
    if len(body) > MAX_SEARCHED_BYTES:
        detail = "an object has two members of one name, or a string of this large body spells a colon as \\u003a"
        raise EkibenError("malformed-json", detail)
    faults: list[Fault] = []
    try:
        _collect_duplicates(json.loads(body, object_pairs_hook=_Members), [], faults)
    except RecursionError:
        raise EkibenError("malformed-json", "expected a JSON object, got one that is nested too deep") from None
    if faults:
        raise invalid_request(faults)


def _collect_duplicates(value: Any, path: list[str | int], faults: list[Fault]) -> None:
    names = set()
    for key, item in value if type(value) is _Members else enumerate(value if type(value) is list else ()):
        path.append(key)
        if key in names and len(faults) < MAX_FAULTS:
            faults.append(Fault(pointer=json_pointer(*path), detail="the object has two members of this name"))
        names.add(key)
        _collect_duplicates(item, path, faults)
        path.pop()


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
