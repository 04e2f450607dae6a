"""Lines that answer an OpenAI batch in OpenAI's format: `custom_id` and the `response` to its request.

Invariant: a line follows from its row and the job alone. Values that OpenAI takes from a clock or a counter cannot do
so: ids are hashes of the row's position, and `created` is 0.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import Job, digest
from service.scoring.output.join import row_ids
from service.scoring.output.sinks import to_json
from service.scoring.scorers.scorer import ScoredRows
from service.scoring.sources.lines import JSON_TEXT

TEXT = pa.string()
JSON_FIELDS = [pa.field(name, TEXT, metadata=JSON_TEXT) for name in ("custom_id", "response")]
SCHEMA = pa.schema([pa.field("id", TEXT), *JSON_FIELDS, pa.field("error", pa.null())])


def completion_lines(
    job: Job, file: InputFile, rows: Rows, scored: ScoredRows, *, tokenizer: Tokenizer | None
) -> pa.Table:
    """One line for each scored row, in order."""
    assert tokenizer is not None, "a text model has one"
    indexes = np.asarray(scored.indexes, np.int64).tolist()
    row_hashes = [digest(file.name, str(rows.numbers[i]))[:24] for i in indexes]
    answers = pa.table(dict(scored.columns)).to_pylist()
    prompts = tokenizer.encode_batch([rows.columns[job.columns["prompt"]][i] for i in indexes])
    responses = [
        _response(job, row_hash, answer, prompt_tokens=len(prompt.ids))
        for row_hash, answer, prompt in zip(row_hashes, answers, prompts, strict=True)
    ]
    columns = (
        [f"batch_req_{row_hash}" for row_hash in row_hashes],
        [to_json(row_id).decode() for row_id in row_ids(job, rows, indexes)],
        [to_json(response).decode() for response in responses],
        [None] * len(indexes),
    )
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def _response(job: Job, row_hash: str, answer: dict[str, Any], *, prompt_tokens: int) -> dict[str, Any]:
    choice = {
        "index": 0,
        "text": answer["text"],
        "finish_reason": answer["finish_reason"],
        "logprobs": _logprobs(answer.get("logprobs")),
    }
    body = {
        "id": f"cmpl-{row_hash}",
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
    return {"status_code": 200, "request_id": row_hash, "body": body}


def _logprobs(entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if entries is None:
        return None
    tokens = [entry["token"] for entry in entries]
    offsets = np.cumsum([0, *map(len, tokens)])[:-1].tolist()
    values = [entry["logprob"] for entry in entries]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}
