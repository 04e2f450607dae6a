"""What the OpenAPI document says of one route, beside what its registry entry says already."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from service.errors import Slug
from service.http.openapi.schemas import TEXT, WHOLE, Schema
from service.http.playground.route import ASSETS
from service.http.wire.messages import MAX_TIMEOUT_MS
from service.manifest import MAX_MODEL_NAME, MODEL_NAME

SEED_HEADER: Schema = {"X-Seed": {"description": "the seed of the answer", "schema": {**WHOLE, "minimum": 0}}}
EMPTY: Schema = {"type": "string", "maxLength": 0}
TIMEOUT_PARAMETER: Schema = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "the deadline of the request, in milliseconds from its arrival; empty as if absent",
    "schema": {"anyOf": [{**WHOLE, "minimum": 1, "maximum": MAX_TIMEOUT_MS}, EMPTY]},
}
PATH_PARAMETERS: Mapping[str, Schema] = {
    "model": {
        "description": "name of a model in GET /models",
        "schema": {**TEXT, "pattern": MODEL_NAME, "maxLength": MAX_MODEL_NAME},
    },
    "asset": {"description": "a file of the playground", "schema": {"enum": sorted(ASSETS)}},
    "plot": {
        "description": "name of a PNG file that the card shows",
        "schema": {**TEXT, "pattern": r"^[0-9A-Za-z._-]+\.png$"},
    },
    "version": {"description": "the version that serves", "schema": {**TEXT, "pattern": "^[0-9A-Za-z._-]+$"}},
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`request` and `answer` map media types to schemas; an empty `request` is none, and one may be optional.

    `events` are the documents in the events of a stream, as components by name; the last may be an error of the route.
    `query` is the model of the query's parameters, `parameters` are others as OpenAPI has them, `headers` those of the
    answer, `errors` the codes that the kind of the route does not imply.
    """

    tag: str
    summary: str
    answer: Mapping[str, Schema | None]  # None: a stream, which no schema describes
    meaning: str = "The answer."  # of the answer
    description: str = ""
    request: Mapping[str, Schema] = field(default_factory=dict)
    needs_body: bool = True
    query: type[BaseModel] | None = None
    parameters: tuple[Schema, ...] = ()
    events: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    errors: tuple[Slug, ...] = ()
    has_entity_tag: bool = False  # the answer may be 304
