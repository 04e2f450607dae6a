"""Answers the requests of an OpenAI batch as OpenAI's routes of the service do.

Invariant: an answer is that of the route to the same body, and follows from its row and the job alone. What the route
takes from a clock or at random cannot do so: ids are those of the row, `created` is 0, and a request without a
seed has the job's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson
import pyarrow as pa

from service.engine.runner import untimed_runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import reject_reason
from service.scoring.scorers.scorer import Items, ScoredRows, Scorer
from service.tasks.faults import MAX_CHARS, fault
from service.tasks.openai.answer import OpenAIRequest
from service.tasks.openai.chat import ChatRequest, read_chat
from service.tasks.openai.completions import CompletionRequest, read_completion
from service.tasks.openai.error import error_object
from service.tasks.openai.fields import OpenAIFields, engine_seed, parse_fields
from service.tasks.openai.routes import CHAT_ROUTE, COMPLETION_ROUTE

ROUTES: Mapping[str, tuple[type[OpenAIFields], Callable[..., Awaitable[OpenAIRequest]]]] = {
    COMPLETION_ROUTE: (CompletionRequest, read_completion),
    CHAT_ROUTE: (ChatRequest, read_chat),
}
# Errors of a row, with the status of the route; any other error is of the engine.
ROW_ERRORS = {"invalid-request": 400, "wrong-task": 400, "not-finite": 500}
SCHEMA = pa.schema([(name, pa.string()) for name in ("text", "finish_reason", "response")])


class OpenAIScorer(Scorer):
    """`columns` of the answer: the text and finish reason of the first choice, and the whole answer as JSON."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        super().__init__(model, columns, request)
        self._runner = untimed_runner()
        self._loop = asyncio.new_event_loop()

    def score(self, rows: Rows, read: MutableMapping[str, Items] | None = None) -> ScoredRows:  # noqa: ARG002
        readable = [i for i in range(len(rows.numbers)) if i not in rows.faults]
        urls, bodies = rows.columns[self._columns["url"]], rows.columns[self._columns["body"]]
        results = self._loop.run_until_complete(self._answer_all([(urls[i], bodies[i]) for i in readable]))
        faults, errors = dict(rows.faults), dict[int, Any]()
        answers: dict[int, dict[str, Any]] = {}
        for i, result in zip(readable, results, strict=True):
            if isinstance(result, EkibenError):
                faults[i] = reject_reason(result, "body")[:MAX_CHARS]
                errors[i] = error_response(result)
            else:
                kind = result["id"].partition("-")[0]
                answers[i] = {**result, "id": f"{kind}-{rows.numbers[i]}", "created": 0}
        columns = {
            "text": [_text(answer) for answer in answers.values()],
            "finish_reason": [answer["choices"][0]["finish_reason"] for answer in answers.values()],
            "response": [orjson.dumps(answer).decode() for answer in answers.values()],
        }
        return ScoredRows(
            indexes=list(answers),
            columns={name: pa.array(columns[name], pa.string()) for name in SCHEMA.names},
            faults=faults,
            errors=errors,
        )

    def close(self) -> None:
        self._loop.close()
        self._runner.close()

    async def _answer_all(self, requests: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any] | EkibenError]:
        """Answer together, so that the requests share the steps of the model."""
        return await asyncio.gather(*(self._answer(url, body) for url, body in requests))

    async def _answer(self, url: str, body: dict[str, Any]) -> dict[str, Any] | EkibenError:
        fields_type, read = ROUTES[url]
        context = self._runner.new_context()
        try:
            body = {name: value for name, value in body.items() if value is not None}
            fields = parse_fields(fields_type, {"seed": 0, **self._request, **body, "model": self._manifest.name})
            if fields.stream:
                raise fault("/stream", "a batch has no streams")
            parsed = await read(self._model, self._runner, fields, engine_seed(fields), context)
            return await parsed.answer(self._runner, context)
        except EkibenError as error:
            if error.slug not in ROW_ERRORS:
                raise
            return error


def error_response(error: EkibenError) -> dict[str, Any]:
    """The response of the route to a request that has this error."""
    status = ROW_ERRORS[error.slug]
    return {"status_code": status, "body": {"error": error_object(error, status)}}


def _text(answer: dict[str, Any]) -> str:
    choice = answer["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])
