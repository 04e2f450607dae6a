"""Lines that answer an OpenAI batch in OpenAI's format: `custom_id`, and the `response` to its request or an `error`.

Invariant: each line of the batch has one line here: in the predictions, or among the errors with a response of the
route's status, or without a response if the line is no request. A line follows from its row and the job alone.
"""

from typing import Any

import orjson
import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import Job, digest
from service.scoring.output.join import row_ids
from service.scoring.output.sinks import to_json
from service.scoring.scorers.scorer import ScoredRows
from service.scoring.sources.text.lines import JSON_TEXT

TEXT = pa.string()
JSON_FIELDS = [pa.field(name, TEXT, metadata=JSON_TEXT) for name in ("custom_id", "response")]
SCHEMA = pa.schema([pa.field("id", TEXT), *JSON_FIELDS, pa.field("error", pa.null())])


def completion_lines(job: Job, file: InputFile, rows: Rows, scored: ScoredRows) -> pa.Table:
    """One line for each scored row, in order."""
    lines = [
        _line(file, rows, i, custom_id, {"status_code": 200, "body": orjson.loads(answer)})
        for i, custom_id, answer in zip(
            scored.indexes,
            row_ids(job, rows, list(scored.indexes)),
            scored.columns["response"].to_pylist(),
            strict=True,
        )
    ]
    arrays = [
        pa.array(
            [to_json(line[field.name]).decode() if field.metadata else line[field.name] for line in lines], field.type
        )
        for field in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def error_line(file: InputFile, rows: Rows, index: int, custom_id: Any, scored: ScoredRows) -> dict[str, Any]:
    """The line for a row that was rejected."""
    response = scored.errors.get(index)
    if response is not None:
        return _line(file, rows, index, custom_id, response)
    error = {"code": "invalid_request", "message": scored.faults[index], "line": rows.lines and rows.lines[index]}
    return _line(file, rows, index, custom_id, None, error=error)


def _line(
    file: InputFile, rows: Rows, index: int, custom_id: Any, response: dict[str, Any] | None, *, error: Any = None
) -> dict[str, Any]:
    row_hash = digest(file.name, str(rows.numbers[index]))[:24]
    if response is not None:
        body = response["body"]
        if "id" in body:
            body = {**body, "id": f"{body['id'].partition('-')[0]}-{row_hash}"}
        response = {"status_code": response["status_code"], "request_id": row_hash, "body": body}
    return {"id": f"batch_req_{row_hash}", "custom_id": custom_id, "response": response, "error": error}
