"""Answers to an OpenAI batch as OpenAI writes them: a line with `custom_id` and the `response` to its request.

Invariant: a line follows from its row and the job alone, so what OpenAI takes from a clock or a counter does not: ids
are hashes of the row's place, `created` is 0.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from service.scoring.files import InputFile
from service.scoring.job import Job, digest
from service.scoring.join import ids
from service.scoring.rows import Rows
from service.scoring.scorers.scored import Scored
from service.scoring.sinks import JSON_TEXT, to_json

TEXT = pa.string()
SCHEMA = pa.schema(
    [
        pa.field("id", TEXT),
        pa.field("custom_id", TEXT, metadata=JSON_TEXT),
        pa.field("response", TEXT, metadata=JSON_TEXT),
        pa.field("error", pa.null()),
    ]
)


def is_openai_batch(job: Job) -> bool:
    """Whether the job's answers go out in this form: JSON Lines for JSON Lines."""
    return job.input_format == "openai" and job.sink == "jsonl"


def responses(job: Job, file: InputFile, rows: Rows, scored: Scored, *, tokenizer: Tokenizer | None) -> pa.Table:
    """A line for each scored row, in order."""
    assert tokenizer is not None, "a text model has one"
    kept = np.asarray(scored.kept, np.int64).tolist()
    places = [digest(file.name, str(rows.numbers[i]))[:24] for i in kept]
    answers = pa.table(dict(scored.columns)).to_pylist()
    prompts = tokenizer.encode_batch([rows.columns[job.columns["prompt"]][i] for i in kept])
    found = [
        _response(job, place, answer, prompt_tokens=len(prompt.ids))
        for place, answer, prompt in zip(places, answers, prompts, strict=True)
    ]
    columns = {
        "id": [f"batch_req_{place}" for place in places],
        "custom_id": [to_json(own).decode() for own in ids(job, rows, kept)],
        "response": [to_json(response).decode() for response in found],
        "error": [None] * len(kept),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _response(job: Job, place: str, answer: dict[str, Any], *, prompt_tokens: int) -> dict[str, Any]:
    choice = {
        "index": 0,
        "text": answer["text"],
        "finish_reason": answer["finish_reason"],
        "logprobs": _logprobs(answer.get("logprobs")),
    }
    body = {
        "id": f"cmpl-{place}",
        "object": "text_completion",
        "created": 0,
        "model": job.model,
        "system_fingerprint": job.version,
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer["tokens"],
            "total_tokens": prompt_tokens + answer["tokens"],
        },
    }
    return {"status_code": 200, "request_id": place, "body": body}


def _logprobs(entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if entries is None:
        return None
    tokens = [entry["token"] for entry in entries]
    offsets = np.cumsum([0, *map(len, tokens)])[:-1].tolist()
    values = [entry["logprob"] for entry in entries]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}
