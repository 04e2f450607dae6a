"""Generates texts and images through the handler of POST /generate.

Invariant: a row is one request, so its answer is the service's answer to that request. Consecutive rows that differ in
the prompt alone share a request, which changes no completion. A row without a seed gets the job's. An image without a
seed gets the job's seed plus its row number, because equal seeds draw equal images.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from itertools import groupby
from typing import Any

import orjson
import pyarrow as pa

from service.contract.heads import LanguageModelHead
from service.engine.runner import untimed_runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import reject_reason, to_python, unwrap
from service.scoring.scorers.scorer import Items, ScoredRows, Scorer
from service.tasks.body import parse_request
from service.tasks.faults import fault
from service.tasks.generate import GenerateRequest, generate
from service.tasks.generation.latents import MAX_SEED

TEXT_SCHEMA = pa.schema(
    [("text", pa.string()), ("finish_reason", pa.string()), ("tokens", pa.int32()), ("seed", pa.int64())]
)
LOGPROBS = pa.field("logprobs", pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())])))
IMAGE_SCHEMA = pa.schema([("image", pa.binary()), ("seed", pa.int64())])


class GenerateScorer(Scorer):
    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        super().__init__(model, columns, request)
        self._is_language_model = isinstance(model.manifest.head, LanguageModelHead)
        self._runner = untimed_runner()
        self._loop = asyncio.new_event_loop()

    def score(self, rows: Rows, read: MutableMapping[str, Items] | None = None) -> ScoredRows:  # noqa: ARG002
        bodies = self._bodies(rows)
        answers: dict[int, dict[str, Any]] = {}
        faults = dict(rows.faults)
        for group in self._groups(bodies, faults):
            self._answer_group(group, bodies, answers, faults)
        indexes = sorted(answers)
        schema = generated_schema(self._columns, self._request, is_language_model=self._is_language_model)
        columns = {field.name: pa.array([answers[i].get(field.name) for i in indexes], field.type) for field in schema}
        return ScoredRows(indexes=indexes, columns=columns, faults=faults)

    def close(self) -> None:
        self._loop.close()
        self._runner.close()

    def _bodies(self, rows: Rows) -> list[dict[str, Any]]:
        """The request of each row: the job's fields, overridden by the row's own."""
        columns = {field: to_python(unwrap(rows.columns[column])) for field, column in self._columns.items()}
        bodies = []
        for i, number in enumerate(rows.numbers):
            seed = self._request.get("seed", 0)
            if not self._is_language_model:
                seed = (seed + number) % (MAX_SEED + 1)
            row_fields = {
                field: values[i] if field == "prompt" else _parse_field(values[i])
                for field, values in columns.items()
                if values[i] is not None or field == "prompt"
            }
            bodies.append({"model": self._model.manifest.name, **self._request, "seed": seed, **row_fields})
        return bodies

    def _groups(self, bodies: Sequence[dict[str, Any]], faults: Mapping[int, str]) -> Iterator[list[int]]:
        """The indexes of rows that share a request: consecutive rows that differ in the prompt alone."""
        readable = [i for i in range(len(bodies)) if i not in faults]
        for _, equal in groupby(readable, lambda i: {**bodies[i], "prompt": None} if self._is_language_model else i):
            rows, limit = list(equal), self._model.manifest.limits.max_items
            yield from (rows[begin : begin + limit] for begin in range(0, len(rows), limit))

    def _answer_group(
        self,
        group: list[int],
        bodies: Sequence[dict[str, Any]],
        answers: dict[int, dict[str, Any]],
        faults: dict[int, str],
    ) -> None:
        """Send the request of a group. If it fails because of a row, send each row as a request of its own."""
        body = bodies[group[0]]
        try:
            if self._is_language_model and not isinstance(body.get("prompt"), str) and len(group) == 1:
                raise fault("/prompt", f"expected a text, got {body.get('prompt')!r:.40}")
            prompts = {"prompt": [bodies[i].get("prompt") for i in group]} if self._is_language_model else {}
            request = parse_request(GenerateRequest, {**body, **prompts})
            answering = generate(self._model, self._runner, request, self._runner.new_context())
            answer = self._loop.run_until_complete(answering)
        except EkibenError as error:
            # Any other error is of the engine, not of a row.
            if error.slug not in {"invalid-request", "not-finite"}:
                raise
            if len(group) == 1:
                faults[group[0]] = reject_reason(error, "request")
                return
            for i in group:
                self._answer_group([i], bodies, answers, faults)
            return
        for position, i in enumerate(group):
            if self._is_language_model:
                answers[i] = {"seed": answer["seed"], **answer["completions"][position]}
            else:
                answers[i] = {"seed": answer["seed"], "image": base64.b64decode(answer["images"][position])}


def generated_schema(columns: Mapping[str, str], request: Mapping[str, Any], *, is_language_model: bool) -> pa.Schema:
    """The columns of the answers of a model that generates."""
    if not is_language_model:
        return IMAGE_SCHEMA
    return TEXT_SCHEMA.append(LOGPROBS) if request.get("logprobs") or "logprobs" in columns else TEXT_SCHEMA


def _parse_field(value: Any) -> Any:
    """Parse a CSV field, which is always a text, as the JSON value that it spells; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
