"""OpenAI's batch format: a line with `custom_id` and the `body` of a request to /v1/completions.

A field of the body is either honoured or rejected, never ignored; only `model` is decided by the job. Without
`max_tokens` a completion has at most 16 tokens, as at OpenAI.
"""

from typing import Any

import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.job import TextOptions
from service.scoring.sources.lines import JsonSource, json_schema

ENDPOINT = "/v1/completions"
MAX_TOKENS = 16
FIELDS = ("prompt", "max_tokens", "temperature", "top_p", "stop", "seed", "logprobs")
# Fields that are accepted with this value, or null.
FIXED: dict[str, Any] = {"n": 1, "best_of": 1, "echo": False, "stream": False, "suffix": None, "logit_bias": None}
# Fields that do not affect the answer.
NEUTRAL = {"model", "user"}


class OpenAiSource(JsonSource):
    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return json_schema(("custom_id", *FIELDS))

    def _exact(self, line: bytes) -> dict[str, Any]:
        content = super()._exact(line)
        body = content.get("body")
        return {**content, **(_request(body) if isinstance(body, dict) else {})}

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        content, fault = super()._parse(line)
        if fault:
            return content, fault
        custom_id, url, body = (content.get(name) for name in ("custom_id", "url", "body"))
        fault = _fault(custom_id, url, body)
        return {"custom_id": custom_id, **({} if fault else _request(body))}, fault


def _fault(custom_id: Any, url: Any, body: Any) -> str | None:
    if not isinstance(custom_id, str):
        return f"custom_id: expected a text, got {custom_id!r:.40}"
    if url != ENDPOINT:
        return f"url: expected {ENDPOINT}, got {url!r:.40}"
    if not isinstance(body, dict):
        return f"body: expected an object, got {body!r:.40}"
    for name, value in body.items():
        if name in FIXED:
            if value is not None and value != FIXED[name]:
                return f"body/{name}: only {FIXED[name]!r} is supported, got {value!r:.40}"
        elif name not in NEUTRAL and name not in FIELDS:
            return f"body: {name!r:.40} is not supported"
    return None


def _request(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of the body that POST /generate has too, in its form."""
    request = {name: value for name, value in body.items() if name in FIELDS}
    if isinstance(request.get("stop"), str):
        request["stop"] = [request["stop"]]
    if type(request.get("logprobs")) is int:
        request["logprobs"] = True
    if request.get("max_tokens") is None:
        request["max_tokens"] = MAX_TOKENS
    return request
