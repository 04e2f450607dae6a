"""OpenAI's batch format: a line with `custom_id` and the `body` of a request to /v1/completions.

What the body asks for is done or refused, never passed over; only its `model` is the job's to say. Without `max_tokens`
a completion has 16 at most, as there.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from service.scoring.files import InputFile
from service.scoring.rows import Span, Want
from service.scoring.sources.lines import JsonReader
from service.scoring.sources.stream import line_spans

ENDPOINT = "/v1/completions"
MAX_TOKENS = 16
FIELDS = ("prompt", "max_tokens", "temperature", "top_p", "stop", "seed", "logprobs")
ONLY: dict[str, Any] = {"n": 1, "best_of": 1, "echo": False, "stream": False, "suffix": None, "logit_bias": None}
FREE = {"model", "user"}  # what decides nothing about the answer


class OpenAiSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        return ("custom_id", *FIELDS)

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:  # noqa: ARG002
        return line_spans(file, shard_rows=shard_rows)

    def open(self, file: InputFile, want: Want) -> "OpenAiReader":
        return OpenAiReader(file, Want(columns=("custom_id", "url", "body")), want.columns)


class OpenAiReader(JsonReader):
    def __init__(self, file: InputFile, want: Want, columns: Sequence[str]) -> None:
        super().__init__(file, want)
        self._columns = columns

    def _values(self, lines: Sequence[bytes | None]) -> tuple[dict[str, list[Any]], dict[int, str]]:
        found, faults = super()._values(lines)
        rows: list[dict[str, Any]] = []
        for i, (own, url, body) in enumerate(zip(found["custom_id"], found["url"], found["body"], strict=True)):
            fault = faults.get(i) or _fault(own, url, body)
            if fault:
                faults[i] = fault
            rows.append({"custom_id": own} if fault else {"custom_id": own, **_request(body)})
        return {name: [row.get(name) for row in rows] for name in self._columns}, faults


def _fault(own: Any, url: Any, body: Any) -> str | None:
    if not isinstance(own, str):
        return f"custom_id: expected a text, got {own!r:.40}"
    if url != ENDPOINT:
        return f"url: expected {ENDPOINT}, got {url!r:.40}"
    if not isinstance(body, dict):
        return f"body: expected an object, got {body!r:.40}"
    for name, value in body.items():
        if name in ONLY:
            if value is not None and value != ONLY[name]:
                return f"body/{name}: only {ONLY[name]!r} is supported, got {value!r:.40}"
        elif name not in FREE and name not in FIELDS:
            return f"body: {name!r:.40} is not supported"
    return None


def _request(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that our own request has, in its form."""
    request = {name: value for name, value in body.items() if name in FIELDS}
    if isinstance(request.get("stop"), str):
        request["stop"] = [request["stop"]]
    if type(request.get("logprobs")) is int:
        request["logprobs"] = True
    if request.get("max_tokens") is None:
        request["max_tokens"] = MAX_TOKENS
    return request
