"""The base classes of request and answer bodies, and the checks of request bodies.

Invariant: a body that cannot be parsed raises one EkibenError whose faults point at the invalid fields and items.
The parser coerces nothing: it accepts neither strings nor booleans as numbers, and rejects NaN.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from service.contract.tensors import FrozenModel
from service.errors import EkibenError, Fault
from service.manifest import Manifest
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer, type_fault

RequestT = TypeVar("RequestT", bound="RequestBody")
# An answer as its JSON holds it; a subclass of `AnswerBody` documents its fields.
JsonObject = dict[str, Any]


class RequestBody(FrozenModel):
    """A request to one model: immutable and strict, without unknown fields."""

    model_config = ConfigDict(strict=True)

    model: str = Field(description="name of a model in GET /models")


class AnswerBody(FrozenModel):
    """The documented fields of an answer; the JSON omits fields that are None."""


def parse_request(request: type[RequestT], content: Any) -> RequestT:
    """Validate decoded JSON as `request`; a field that is null counts as absent.

    Raises EkibenError("invalid-request") with a fault per mistake.
    """
    if type(content) is dict and len(content) > len(request.model_fields) + MAX_FAULTS:
        raise _too_many_unknown(request, content)
    if type(content) is dict and None in content.values():
        # As if they were not there.
        content = {name: value for name, value in content.items() if value is not None}
    try:
        return request.model_validate(content)
    except ValidationError as error:
        raise invalid_request(tuple(_to_fault(request, item) for item in error.errors(include_url=False))) from None


def check_items(items: Sequence[Any], manifest: Manifest, pointer: str) -> None:
    """Raise EkibenError unless there are 1 to `limits.max_items` items."""
    if not 1 <= len(items) <= manifest.limits.max_items:
        raise type_fault(pointer, f"1 to {manifest.limits.max_items} items", list(items))


def check_unused_fields(fields: Iterable[str], given: set[str], manifest: Manifest, accepted: str) -> None:
    """Raise EkibenError if the request gives `fields` that this model does not use; `accepted` names those it uses."""
    if unused := [field for field in fields if field in given]:
        detail = f"not a field for {manifest.name}, which takes {accepted}"
        raise invalid_request([Fault(pointer=f"/{field}", detail=detail) for field in unused])


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
            detail = _unknown_field(request) if len(error["loc"]) == 1 else "unknown field"
        case "model_type" | "model_attributes_type":
            detail = f"expected a JSON object, got {got}"
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            detail = f"expected {expected}, got {got}"
    return Fault(pointer=json_pointer(*error["loc"]), detail=detail)
