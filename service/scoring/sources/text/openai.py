"""OpenAI's batch format: a line with `custom_id`, the `url` of a route and the `body` of a request to it.

Columns: these three. Invariant: no two lines of a batch have one `custom_id`, so that each answer finds its request.
"""

from collections.abc import Iterable
from contextlib import closing
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
from xxhash import xxh3_128_digest

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream, blocks
from service.scoring.sources.text.encoding import BOM, text_encoding
from service.scoring.sources.text.lines import JsonSource, json_schema
from service.tasks.openai.routes import CHAT_ROUTE, COMPLETION_ROUTE

COLUMNS = ("custom_id", "url", "body")
ROUTES = (COMPLETION_ROUTE, CHAT_ROUTE)
# The hash of each `custom_id` so far, with its file and line.
SeenIds: TypeAlias = dict[bytes, tuple[str, int]]


class OpenAiSource(JsonSource):
    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return json_schema(COLUMNS)

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        content, fault = super()._parse(line)
        return content, fault or _fault(content)


def is_batch(columns: Iterable[str]) -> bool:
    """Whether the keys of the first lines of a JSON Lines file are those of a batch."""
    return set(COLUMNS) <= set(columns)


def check_custom_ids(file: InputFile, text_options: TextOptions, seen: SeenIds) -> None:
    """Read a file of a batch. Raises ScoringError that names the lines of a `custom_id` that is given twice."""
    number = 0
    with closing(Stream(file, text_encoding(file, text_options))) as stream:
        for block in blocks(stream):
            lines = block.content.removeprefix(BOM).removesuffix(b"\n").split(b"\n") if block.content else [b""]
            for line in lines:
                number += 1
                _check_custom_id(line, file.name, number, seen)


def _check_custom_id(line: bytes, file: str, number: int, seen: SeenIds) -> None:
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        return  # the line is rejected when it is scored
    custom_id = content.get("custom_id") if isinstance(content, dict) else None
    if not isinstance(custom_id, str):
        return
    place = seen.setdefault(xxh3_128_digest(custom_id.encode()), (file, number))
    if place != (file, number):
        first = f"{place[0]}, line {place[1]}"
        raise ScoringError(f"{file}, line {number}: custom_id {custom_id[:40]!r} was given already, at {first}")


def _fault(content: dict[str, Any]) -> str | None:
    custom_id, url, body = (content.get(name) for name in COLUMNS)
    if not isinstance(custom_id, str):
        return f"custom_id: expected a text, got {custom_id!r:.40}"
    if url not in ROUTES:
        return f"url: expected {' or '.join(ROUTES)}, got {url!r:.40}"
    if content.get("method", "POST") != "POST":
        return f"method: expected POST, got {content['method']!r:.40}"
    if not isinstance(body, dict):
        return f"body: expected an object, got {body!r:.40}"
    return None
