"""Error responses in the OpenAPI document: their schemas, by the format of a route, and the statuses of each route.

Invariant: a response lists exactly the codes that its status can have in its format.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from service.errors import EkibenError, Slug
from service.http.openapi.schemas import TEXT, WHOLE, Schema, array, nullable, record
from service.http.route import InferenceRoute, Route
from service.http.wire.errors import (
    OPENAI_STATUS,
    PROBLEM_JSON,
    STATUS,
    oip_error_response,
    openai_error_response,
    problem_response,
)
from service.http.wire.messages import JSON, Response
from service.tasks.openai.error import CODES

ACCESS: frozenset[Slug] = frozenset({"unauthorized", "forbidden", "misdirected", "rate-limited"})
INFERENCE: frozenset[Slug] = frozenset({
    "malformed-json", "unsupported-media-type", "body-too-large", "invalid-request", "unknown-model", "not-ready",
    "overloaded", "timeout", "not-finite",
})  # fmt: skip
FAULT = record({"pointer": {**TEXT, "description": "JSON Pointer (RFC 6901) into the request"}, "detail": TEXT})
PROBLEM = record(
    {
        "type": {**TEXT, "format": "uri", "pattern": "^urn:ekiben:problem:"},
        "title": TEXT,
        "status": {**WHOLE, "minimum": 400, "maximum": 599},
        "detail": TEXT,
        "code": {"type": "string", "enum": list(get_args(Slug))},
        "errors": array(FAULT),
    }
)
OIP_ERROR = record({"error": {**TEXT, "description": "as `detail`"}, **PROBLEM["properties"]})
OPENAI_ERROR = record(
    {
        "error": record(
            {
                "message": TEXT,
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": nullable({**TEXT, "description": "the field of the request that it concerns"}),
                "code": TEXT,
            }
        )
    }
)
SECONDS: Schema = {
    "description": "seconds after which the same request should succeed",
    "required": True,
    "schema": {**WHOLE, "minimum": 1},
}
MILLISECONDS: Schema = {"description": "the same in milliseconds", "schema": {**WHOLE, "minimum": 0}}
RETRY_HEADERS: Schema = {"Retry-After": SECONDS, "Retry-After-Ms": MILLISECONDS}


@dataclass(frozen=True, kw_only=True)
class ErrorFormat:
    """How the errors of a route look: `name` is that of the component with the `schema`."""

    name: str
    media_type: str
    schema: Schema
    statuses: Mapping[Slug, int]
    # The schema of a document with one of these codes.
    narrowed: Callable[[int, list[Slug]], Schema]


def _narrow_problem(status: int, codes: list[Slug]) -> Schema:
    return {"properties": {"status": {"const": status}, "code": {"enum": codes}}}


def _narrow_openai(_: int, codes: list[Slug]) -> Schema:
    names = [CODES.get(code, code) for code in codes]
    return {"properties": {"error": {"type": "object", "properties": {"code": {"enum": names}}}}}


STATUSES: Mapping[Slug, int] = {slug: int(status) for slug, status in STATUS.items()}
OPENAI_STATUSES: Mapping[Slug, int] = {**STATUSES, **{slug: int(status) for slug, status in OPENAI_STATUS.items()}}
FORMATS: Mapping[Callable[[EkibenError], Response], ErrorFormat] = {
    problem_response: ErrorFormat(
        name="Problem", media_type=PROBLEM_JSON, schema=PROBLEM, statuses=STATUSES, narrowed=_narrow_problem
    ),
    oip_error_response: ErrorFormat(
        name="OipError", media_type=JSON, schema=OIP_ERROR, statuses=STATUSES, narrowed=_narrow_problem
    ),
    openai_error_response: ErrorFormat(
        name="OpenAIError", media_type=JSON, schema=OPENAI_ERROR, statuses=OPENAI_STATUSES, narrowed=_narrow_openai
    ),
}


def possible_errors(route: Route, others: Iterable[Slug]) -> frozenset[Slug]:
    """Return the errors that a route can answer with; `others` are those of its own."""
    access = ACCESS if route.scope is not None else frozenset()
    inference = INFERENCE if isinstance(route, InferenceRoute) else frozenset()
    return frozenset({"internal", "malformed-message", *others}) | access | inference


def describe_errors(route: Route, others: Iterable[Slug], *, with_body: bool) -> dict[str, Schema]:
    """Return the error responses of a route by status."""
    form = FORMATS[route.error_format]
    codes: dict[int, list[Slug]] = defaultdict(list)
    for slug in sorted(possible_errors(route, others)):
        codes[form.statuses[slug]].append(slug)
    return {str(status): _response(form, status, codes[status], with_body=with_body) for status in sorted(codes)}


def _response(form: ErrorFormat, status: int, codes: list[Slug], *, with_body: bool) -> Schema:
    response: Schema = {"description": " or ".join(codes)}
    if status in {429, 503}:
        response["headers"] = RETRY_HEADERS
    if with_body:
        reference = {"$ref": f"#/components/schemas/{form.name}"}
        response["content"] = {form.media_type: {"schema": {"allOf": [reference, form.narrowed(status, codes)]}}}
    return response
