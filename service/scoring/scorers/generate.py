"""Prompts and pictures, through the handler that answers POST /generate.

Invariant: a row is one request, so its answer is the service's answer to it. Neighbours that ask for the same but for
the prompt travel in one request, which changes no completion. A row without a seed gets the job's; a picture without
one gets the job's plus its row number, since the same seed draws the same picture.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from service.engine.runner import untimed_runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.families import LanguageModel
from service.scoring.rows import Rows
from service.scoring.scorers.items import plain, reason, values
from service.scoring.scorers.scored import Scored
from service.tasks.body import parse_request
from service.tasks.faults import fault
from service.tasks.generate import MAX_SEED, GenerateRequest, generate

TEXT_SCHEMA = pa.schema(
    [("text", pa.string()), ("finish_reason", pa.string()), ("tokens", pa.int32()), ("seed", pa.int64())]
)
LOGPROBS = pa.field("logprobs", pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())])))
IMAGE_SCHEMA = pa.schema([("image", pa.binary()), ("seed", pa.int64())])


class GenerateScorer:
    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        self._model = model
        self._columns = columns
        self._request = request
        self._writes = isinstance(model.manifest.parameters, LanguageModel)
        self._runner = untimed_runner()
        self._loop = asyncio.new_event_loop()

    def score(self, rows: Rows) -> Scored:
        bodies = self._bodies(rows)
        answers: dict[int, dict[str, Any]] = {}
        faults = dict(rows.faults)
        for group in self._groups(bodies, faults):
            self._answer(group, bodies, answers, faults)
        kept = sorted(answers)
        schema = self._schema()
        columns = {
            name: pa.array([answers[i].get(name) for i in kept], schema.field(name).type) for name in schema.names
        }
        return Scored(kept=kept, columns=columns, faults=faults)

    def close(self) -> None:
        self._loop.close()
        self._runner.close()

    def _schema(self) -> pa.Schema:
        if not self._writes:
            return IMAGE_SCHEMA
        told = self._request.get("logprobs") or "logprobs" in self._columns
        return TEXT_SCHEMA.append(LOGPROBS) if told else TEXT_SCHEMA

    def _bodies(self, rows: Rows) -> list[dict[str, Any]]:
        given = {field: values(plain(rows.columns[column])) for field, column in self._columns.items()}
        bodies = []
        for i, number in enumerate(rows.numbers):
            seed = self._request.get("seed", 0)
            fixed = {**self._request, "seed": seed if self._writes else (seed + number) % (MAX_SEED + 1)}
            own = {
                field: column[i] if field == "prompt" else _number(column[i])
                for field, column in given.items()
                if column[i] is not None or field == "prompt"
            }
            bodies.append({"model": self._model.manifest.name, **fixed, **own})
        return bodies

    def _groups(self, bodies: Sequence[dict[str, Any]], faults: Mapping[int, str]) -> Iterator[list[int]]:
        """Rows that may travel in one request: neighbours that differ in the prompt alone."""
        group: list[int] = []
        for i, body in enumerate(bodies):
            if i in faults:
                continue
            full = len(group) == self._model.manifest.limits.max_items
            if group and (full or not self._together(bodies[group[0]], body)):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _together(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return self._writes and _but_prompt(one) == _but_prompt(other)

    def _answer(
        self,
        group: list[int],
        bodies: Sequence[dict[str, Any]],
        answers: dict[int, dict[str, Any]],
        faults: dict[int, str],
    ) -> None:
        """Ask for a group; one that is refused is asked for row by row."""
        body = bodies[group[0]]
        try:
            if self._writes and not isinstance(body.get("prompt"), str) and len(group) == 1:
                raise fault("/prompt", f"expected a text, got {body.get('prompt')!r:.40}")
            asked = {**body, "prompt": [bodies[i].get("prompt") for i in group]} if self._writes else body
            answer = self._ask(asked)
        except EkibenError as error:
            if error.slug != "invalid-request":  # the engine's trouble, not the row's
                raise
            if len(group) == 1:
                faults[group[0]] = reason(error, "request")
                return
            for i in group:
                self._answer([i], bodies, answers, faults)
            return
        for place, i in enumerate(group):
            answers[i] = _row(answer, place)

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        request = parse_request(GenerateRequest, dict(body))
        return self._loop.run_until_complete(generate(self._model, self._runner, request, self._runner.new_context()))


def _number(value: Any) -> Any:
    """A field of CSV, where everything is a text, as the JSON value that it spells."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _but_prompt(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "prompt"}


def _row(answer: Mapping[str, Any], place: int) -> dict[str, Any]:
    if "completions" in answer:
        return {"seed": answer["seed"], **answer["completions"][place]}
    return {"seed": answer["seed"], "image": base64.b64decode(answer["images"][place])}
