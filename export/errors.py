"""The errors of export: a model that must not be served, and a response that differs from the reference's.

An `ExportError` reaches the user as one line that names the gate and what is wrong, with tensor and case if known.
"""

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from service.bundle import first_validation_error


class ExportError(ValueError):
    """A gate refused the model. The message names the gate and what is wrong, with tensor and case if known."""

    def __init__(self, gate: str, detail: str) -> None:
        super().__init__(f"{gate}: {detail}")
        self.gate = gate
        self.detail = detail


class MismatchError(Exception):
    """A response of the service code differs from what the reference computes for the same request."""


def one_sentence(error: BaseException) -> str:
    """What an error says, in one line; an error of somebody's code is named by its type."""
    if isinstance(error, ValidationError):
        return first_validation_error(error)
    line = " ".join(str(error).split())
    return (
        line if isinstance(error, ValueError | OSError) and line else f"{type(error).__name__}: {line or 'no message'}"
    )


def validation_sentence(invalid: ValidationError, root: type[BaseModel]) -> str:
    """One mistake in a file of `root`, an unknown key before a missing one: table, key and what is allowed there."""
    errors = invalid.errors(include_url=False)
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    # Of the members of a union, the one whose own check failed says more than the one of another type.
    similar = (other for other in errors if other["loc"][:-1] == error["loc"][:-1] and other["type"] == "value_error")
    keys, parent = _keys((error := next(similar, error))["loc"], root)
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in keys).removeprefix(".")
    table, _, key = where.rpartition(".")
    at = f"[{table}] " if table else ""
    match error["type"]:
        case "extra_forbidden":
            hint = _nearest(key, sorted(parent.model_fields))
            return f"{at}has no key {key!r}; {hint}" if at else f"there is no key {key!r}; {hint}"
        case "missing":
            return f"{at}lacks the key {key!r}" if at else f"the table [{key}] is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            kinds = [name for member in _models(parent) for name in _tags(member)]
            tag = error.get("ctx", {}).get("tag")
            return f"[{where}] " + (
                f"lacks the key 'kind'; allowed are {', '.join(kinds)}"
                if tag is None
                else f"kind is {tag!r}; {_nearest(tag, kinds)}"
            )
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if error["type"] == "value_error":
        return f"[{where}] {reason}" if isinstance(error["input"], dict) else f"{at}{key}: {reason}"
    return f"{at}{key} is {error['input']!r}: {reason}"


def _nearest(word: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(word, allowed, 1)
    listed = f"allowed are {', '.join(allowed)}"
    return f"did you mean {near[0]!r}? ({listed})" if near else listed


def _keys(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[int | str], Any]:
    """The keys of the file in the location of an error, without pydantic's names of types, and the type that holds the
    last of them; for a union that was not decided, the union."""
    keys: list[int | str] = []
    here: Any = root
    holder: Any = root
    for position, step in enumerate(location):
        models = _models(here)
        if isinstance(step, int):
            keys.append(step)
        elif len(models) > 1 and (member := next((model for model in models if step in _tags(model)), None)):
            here = holder = member
        elif member := next((model for model in models if step in model.model_fields), None):
            keys.append(step)
            holder, here = member, member.model_fields[step].annotation
        elif get_origin(here) is dict or (models and position == len(location) - 1):
            keys.append(step)
            holder = here = models[0] if models else holder
    return keys, here if len(_models(here)) > 1 else holder


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """The kinds of a member of a union."""
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()
