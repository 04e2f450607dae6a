"""The fields and parameters of an Open Inference Protocol request: those that are read, and those that change nothing.

Invariant: a parameter that would change the response is honoured or refused, never ignored. Clients of other servers
also send parameters at values that ask for what happens anyway: exactly these values are accepted.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.tasks.faults import describe_value, fault, json_pointer, type_fault


class Neutral(NamedTuple):
    """The values of a parameter that change nothing; with `kind`, every value of this type."""

    values: tuple[Any, ...] = ()
    reason: str = ""  # why no other value is accepted
    kind: type | None = None


SEQUENCES = "a request does not depend on earlier ones"
# MLServer's codecs: the tensors are the same with and without these, unlike those of `base64` or `datetime`.
CONTENT_TYPE = Neutral(("np", "pd", "str"), "tensors are read as they are")
NEUTRAL_OF_REQUEST: Mapping[str, Neutral] = {
    "priority": Neutral((0,), "requests are computed in the order of their deadlines"),
    "sequence_id": Neutral((0, ""), SEQUENCES),
    "sequence_start": Neutral((False,), SEQUENCES),
    "sequence_end": Neutral((False,), SEQUENCES),
    "content_type": CONTENT_TYPE,
    "headers": Neutral(kind=dict),  # MLServer's copy of the headers of the request
}
NEUTRAL_OF_TENSOR: Mapping[str, Neutral] = {"content_type": CONTENT_TYPE}
SHARED_MEMORY = "shared_memory_"


def parse_object(value: Any, supported: set[str], where: str, expected: str = "an object") -> dict[str, Any]:
    """Return a JSON object; raises EkibenError("invalid-request") for another value or a field not `supported`."""
    if type(value) is not dict:
        raise type_fault(where, expected, value)
    if not value.keys() <= supported:
        unknown = min(value.keys() - supported)
        if unknown.startswith(SHARED_MEMORY):
            detail = "shared memory is not supported: send the numbers as JSON or as bytes"
        else:
            detail = f"not supported here; supported: {', '.join(sorted(supported))}"
        raise fault(where + json_pointer(unknown), detail)
    return value


def parse_parameters(
    entry: dict[str, Any], honoured: set[str], where: str, neutral: Mapping[str, Neutral] = NEUTRAL_OF_TENSOR
) -> dict[str, Any]:
    """Return the `honoured` parameters of an object at `where`; a parameter that is null counts as absent.

    Raises EkibenError("invalid-request") for a parameter that would change the response otherwise.
    """
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    where = f"{where}/parameters"
    parse_object(parameters, honoured | neutral.keys(), where)
    for name, value in parameters.items():
        if name in neutral and value is not None:
            _check_neutral(neutral[name], value, f"{where}/{name}")
    return {name: value for name, value in parameters.items() if name in honoured and value is not None}


def _check_neutral(neutral: Neutral, value: Any, where: str) -> None:
    if neutral.kind is not None:
        if type(value) is not neutral.kind:
            raise type_fault(where, "an object", value)
    elif not any(type(value) is type(accepted) and value == accepted for accepted in neutral.values):
        accepted = " or ".join(map(describe_value, neutral.values))
        raise fault(where, f"expected {accepted}, because {neutral.reason}; got {describe_value(value)}")
