"""What every request body has in common: how it is read, and how a mistake in it is named.

Invariant: a body that cannot be read raises one EkibenError whose faults point at the fields and items that are wrong
and say what was expected and what came. Nothing is coerced: a string is no number, a boolean is no number, and NaN is
nothing at all.
"""

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from service.errors import EkibenError, Fault

MAX_FAULTS = 16
MAX_SHOWN_CHARS = 40


class Body(BaseModel):
    """A request to one model: frozen, strict, and closed to fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(description="name of a model of GET /models")


Document = dict[str, Any]  # an answer as its JSON will have it, of the shape that an `Answer` declares


class Answer(BaseModel):
    """What an answer is made of, for whoever reads the API; fields that are None are left out of the JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


BodyT = TypeVar("BodyT", bound=Body)


def parse(request: type[BodyT], content: Any) -> BodyT:
    """Read a decoded JSON document as `request`; raises EkibenError("invalid-request"), a fault for each mistake."""
    if type(content) is dict and len(content) > len(request.model_fields) + MAX_FAULTS:
        raise _flood(request, content)
    try:
        return request.model_validate(content)
    except ValidationError as error:
        raise invalid(tuple(_fault(request, item) for item in error.errors(include_url=False))) from None


def invalid(faults: Sequence[Fault], count: int = 0) -> EkibenError:
    """The error of a request that was parsed and is wrong; a flood of faults is cut, and counted if `count` is not."""
    first = faults[0]
    more = f" (and {max(count, len(faults)) - 1} more)" if max(count, len(faults)) > 1 else ""
    where = f"{first.pointer}: " if first.pointer else ""
    return EkibenError("invalid-request", f"{where}{first.detail}{more}", tuple(faults[:MAX_FAULTS]))


def wrong(where: str, expected: str, got: Any) -> EkibenError:
    """The error of one wrong place: `expected` in words, `got` the value that came."""
    return refuse(where, f"expected {expected}, got {describe(got)}")


def refuse(where: str, detail: str) -> EkibenError:
    """The error of one wrong place, in a sentence."""
    return invalid([Fault(pointer=where, detail=detail)])


def pointer(*parts: str | int) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def describe(value: Any) -> str:
    """A JSON value in a few words; long ones are named by their kind and size."""
    match value:
        case str():
            return repr(value) if len(value) <= MAX_SHOWN_CHARS else f"a string of {len(value)} characters"
        case None | int() | float():
            return json.dumps(value)  # NaN and Infinity as their writers spell them
        case list():
            return "an empty list" if not value else f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def _flood(request: type[Body], content: dict[str, Any]) -> EkibenError:
    """The error of more unknown fields than are named, without an object for each of them."""
    fields = request.model_fields
    first = islice((name for name in content if name not in fields), MAX_FAULTS)
    faults = [Fault(pointer=pointer(name), detail=_unknown(request)) for name in first]
    return invalid(faults, len(content) - sum(name in content for name in fields))


def _unknown(request: type[Body]) -> str:
    return f"unknown field; the fields are {', '.join(request.model_fields)}"


def _fault(request: type[Body], error: ErrorDetails) -> Fault:
    where = pointer(*error["loc"])
    got = describe(error["input"])
    match error["type"]:
        case "missing":
            detail = "this field is required"
        case "extra_forbidden":
            detail = _unknown(request)
        case "model_type" | "model_attributes_type":
            detail = f"expected a JSON object, got {got}"
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            detail = f"expected {expected}, got {got}"
    return Fault(pointer=where, detail=detail)
