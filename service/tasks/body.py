"""The base classes of request and answer bodies, and the parser of request bodies.

Invariant: a body that cannot be parsed raises one EkibenError whose faults point at the invalid fields and items.
The parser coerces nothing: it accepts neither strings nor booleans as numbers, and rejects NaN.
"""

from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from service.errors import EkibenError, Fault
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer


class RequestBody(BaseModel):
    """A request to one model: immutable and strict, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(description="name of a model in GET /models")


# An answer as its JSON holds it; a subclass of `AnswerBody` documents its fields.
JsonObject = dict[str, Any]


class AnswerBody(BaseModel):
    """The documented fields of an answer; the JSON omits fields that are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")


RequestT = TypeVar("RequestT", bound=RequestBody)


def parse_request(request: type[RequestT], content: Any) -> RequestT:
    """Validate decoded JSON as `request`; raises EkibenError("invalid-request") with a fault per mistake."""
    if type(content) is dict and len(content) > len(request.model_fields) + MAX_FAULTS:
        raise _too_many_unknown(request, content)
    try:
        return request.model_validate(content)
    except ValidationError as error:
        raise invalid_request(tuple(_to_fault(request, item) for item in error.errors(include_url=False))) from None


def _too_many_unknown(request: type[RequestBody], content: dict[str, Any]) -> EkibenError:
    """Name the first MAX_FAULTS unknown fields and count the others, without a pydantic error for each."""
    fields = request.model_fields
    first = islice((name for name in content if name not in fields), MAX_FAULTS)
    faults = [Fault(pointer=json_pointer(name), detail=_unknown_field(request)) for name in first]
    return invalid_request(faults, len(content) - sum(name in content for name in fields))


def _unknown_field(request: type[RequestBody]) -> str:
    return f"unknown field; the fields are {', '.join(request.model_fields)}"


def _to_fault(request: type[RequestBody], error: ErrorDetails) -> Fault:
    got = describe_value(error["input"])
    match error["type"]:
        case "missing":
            detail = "this field is required"
        case "extra_forbidden":
            detail = _unknown_field(request)
        case "model_type" | "model_attributes_type":
            detail = f"expected a JSON object, got {got}"
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            detail = f"expected {expected}, got {got}"
    return Fault(pointer=json_pointer(*error["loc"]), detail=detail)
