"""The rows of captured requests: one for each item, with the columns that `service.scoring` reads.

Invariant: a row holds nothing of a request or answer but the listed fields.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from service.http.telemetry.observation import Outcome

# Fields with one value for each item of a request, and the column of an item, as scoring calls it. A row of a table and
# the tensors of an item become one column for each of their own.
ITEMS = {"images": "image", "texts": "text", "sequences": "sequence", "states": "state", "prompt": "prompt"}
BODY = "body"  # in the list of fields: the bodies that are not JSON, such as pictures and tensors
ITEM_FIELDS = frozenset((*ITEMS, "rows", "tensors"))
Row = dict[str, Any]


class Captured(NamedTuple):
    """One request; a body in JSON has `is_json`."""

    at: float  # Unix time
    request_id: str
    route: str
    outcome: Outcome
    body: bytes
    is_json: bool


def rows_of(captured: Captured, fields: frozenset[str]) -> list[Row]:
    """The rows of a request: one for each of its items if it was answered, else one."""
    outcome = captured.outcome
    asked = _listed(captured.body, fields) if captured.is_json else {}
    answered = _listed(outcome.response.body, fields) if _is_json(outcome) and outcome.response is not None else {}
    # The items of a request that was refused may be anything, and would become columns of any name.
    is_answered = outcome.status == HTTPStatus.OK
    columns = _columns(asked) if is_answered else {}
    others = {name: value for name, value in asked.items() if not is_answered or name not in ITEM_FIELDS}
    num_items = max((len(values) for values in columns.values()), default=1)
    answers = _by_item(answered, num_items)
    shared = {
        "ekiben_time": captured.at,
        "ekiben_id": captured.request_id,
        "ekiben_route": captured.route,
        "ekiben_model": outcome.model,
        "ekiben_version": outcome.version,
        "ekiben_status": outcome.status,
        "ekiben_seconds": outcome.seconds,
        "ekiben_request": _text(others),
        "ekiben_body": captured.body if not captured.is_json and BODY in fields else None,
    }
    return [
        {
            **shared,
            "ekiben_item": number,
            "ekiben_answer": _text(answers[number]),
            **{name: values[number] for name, values in columns.items() if number < len(values)},
        }
        for number in range(num_items)
    ]


def _by_item(answered: dict[str, Any], num_items: int) -> list[dict[str, Any]]:
    """What belongs to each item of an answer: its prediction, and all that is not a prediction."""
    predictions = answered.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != num_items:
        return [answered] * num_items
    return [{**answered, "predictions": [prediction]} for prediction in predictions]


def _columns(asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each column, one for each item, of what the request asks."""
    columns: dict[str, list[Any]] = {}
    for field, column in ITEMS.items():
        if field in asked:
            value = asked[field]
            columns[column] = value if isinstance(value, list) else [value]
    rows = asked.get("rows")
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        columns |= {
            name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
        }
    tensors = asked.get("tensors")
    if isinstance(tensors, dict):
        columns |= {name: value for name, value in tensors.items() if isinstance(value, list)}
    return columns


def _listed(body: bytes, fields: frozenset[str]) -> dict[str, Any]:
    """The listed fields of a JSON object; none of a body that is something else."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return {name: value for name, value in document.items() if name in fields} if isinstance(document, dict) else {}


def _is_json(outcome: Outcome) -> bool:
    return outcome.response is not None and outcome.response.content_type.endswith("json")


def _text(fields: Mapping[str, Any]) -> str | None:
    return orjson.dumps(fields).decode() if fields else None
