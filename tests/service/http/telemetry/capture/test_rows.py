"""A row is an item of a request, with the listed fields and nothing else."""

from typing import Any

import orjson
import pytest

from service.http.telemetry.capture.rows import Captured, rows_of
from service.http.telemetry.observation import Outcome
from service.http.wire.errors import PROBLEM_JSON
from service.http.wire.messages import JSON, Response


def rows(asked: Any, answered: Any = None, fields: str = "", *, is_json: bool = True, **changes: Any) -> Any:
    body = asked if isinstance(asked, bytes) else orjson.dumps(asked)
    content_type = changes.get("content_type", JSON)
    response = None if answered is None else Response(content_type, orjson.dumps(answered))
    how = Outcome(changes.get("status", 200), 0.25, "m", "v", response)
    return rows_of(Captured(1.5, "id-1", "/predict", how, body, is_json), frozenset(fields.split(",")))


def test_nothing_but_numbers_and_names_is_kept_by_default() -> None:
    secret = {"texts": ["secret"], "rows": [{"name": "secret"}], "tensors": {"x": ["secret"]}, "other": "secret"}
    (row,) = rows(secret, {"predictions": [{"text": "secret"}], "detail": "secret"})
    assert "secret" not in str(row)
    assert row == {
        "ekiben_time": 1.5, "ekiben_id": "id-1", "ekiben_route": "/predict", "ekiben_model": "m",
        "ekiben_version": "v", "ekiben_status": 200, "ekiben_seconds": 0.25, "ekiben_request": None,
        "ekiben_body": None, "ekiben_item": 0, "ekiben_answer": None,
    }  # fmt: skip


def test_items_are_rows_with_their_predictions() -> None:
    found = rows({"texts": ["a", "b"], "top_k": 2, "x": 1}, {"predictions": [1, 2], "y": 3}, "texts,top_k,predictions")
    assert [(row["ekiben_item"], row["text"]) for row in found] == [(0, "a"), (1, "b")]
    assert [orjson.loads(row["ekiben_answer"]) for row in found] == [{"predictions": [1]}, {"predictions": [2]}]
    assert {row["ekiben_request"] for row in found} == {'{"top_k":2}'}


def test_columns_of_tables_and_tensors_are_columns() -> None:
    found = rows({"rows": [{"age": 1, "city": "x"}, {"age": 2, "city": "y"}]}, None, "rows")
    assert [(row["age"], row["city"]) for row in found] == [(1, "x"), (2, "y")]
    found = rows({"tensors": {"a": [[1], [2]], "b": [3, 4]}}, None, "tensors")
    assert [(row["a"], row["b"]) for row in found] == [([1], 3), ([2], 4)]


@pytest.mark.parametrize(
    ("asked", "num_rows"),
    [
        (b"", 1), (b"{", 1), (b"[1]", 1), (b'{"texts":"a"}', 1), (b'{"texts":[]}', 0), (b'{"texts":null}', 1),
        (b'{"rows":[1]}', 1), (b'{"rows":{}}', 1), (b'{"tensors":[1]}', 1), (b'{"tensors":{"a":1}}', 1),
        (b'{"sequences":[1,2],"states":[null]}', 2),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense_are_rows_too(asked: bytes, num_rows: int) -> None:
    fields = "texts,rows,tensors,sequences,states,predictions"
    assert len(rows(asked, {"predictions": None}, fields)) == num_rows


def test_an_answer_that_is_not_by_item_belongs_to_each() -> None:
    found = rows({"prompt": ["a", "b"]}, {"code": "timeout"}, "prompt,code", content_type=PROBLEM_JSON)
    assert [row["prompt"] for row in found] == ["a", "b"]
    assert {row["ekiben_answer"] for row in found} == {'{"code":"timeout"}'}


def test_what_a_refused_request_invents_becomes_no_column() -> None:
    asked = {"rows": [{f"column-{n}": n} for n in range(1000)], "top_k": 2, "other": 1}
    (row,) = rows(asked, {"code": "invalid-request"}, "rows,top_k,code", status=422)
    assert not [name for name in row if name.startswith("column")]
    assert orjson.loads(row["ekiben_request"]) == {"rows": asked["rows"], "top_k": 2}


def test_a_body_that_is_not_json_is_kept_if_listed() -> None:
    (row,) = rows(b"\x89PNG", None, "body", is_json=False)
    assert row["ekiben_body"] == b"\x89PNG"
    (row,) = rows(b"\x89PNG", None, "texts", is_json=False)
    assert row["ekiben_body"] is None
    (row,) = rows({"body": "x"}, None, "body")
    assert (row["ekiben_body"], row["ekiben_request"]) == (None, '{"body":"x"}')
