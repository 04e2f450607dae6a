"""Rows become numbers and the indexes of their categories, or every invalid column is named with what it accepts."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.manifest import ValueRange
from service.tasks.readers.table import read, read_rows
from tests.service.pairs import ROW


@pytest.fixture(scope="module")
def model(pair_models: dict[str, Model]) -> Model:
    return pair_models["tiny-customers"]


def faults(model: Model, *rows: Any) -> dict[str, str]:
    with pytest.raises(EkibenError) as caught:
        read_rows(rows, model.manifest, "/rows")
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def test_rows_become_numbers_and_indexes(model: Model, runner: Runner) -> None:
    rows = [ROW, {"height": 0.5, "age": 120, "city": "lima"}]
    payload = asyncio.run(read(model, runner, {"rows": rows}, runner.new_context()))
    [group] = payload.groups
    assert group.inputs["numbers"].dtype == np.float32
    assert group.inputs["numbers"].tolist() == [[41, np.float32(1.8)], [120, 0.5]]
    assert group.inputs["categories"].tolist() == [[1], [2]]
    assert (payload.pointer, list(group.items)) == ("/rows", [0, 1])


NUMBER = "expected a number of 0.0 to 120.0"
CITY = "expected one of 'rome', 'oslo', 'lima'"


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"age": 121}, "/age", f"{NUMBER}, got 121"),
        ({"age": -0.5}, "/age", f"{NUMBER}, got -0.5"),
        ({"age": "41"}, "/age", f"{NUMBER}, got '41'"),
        ({"age": True}, "/age", f"{NUMBER}, got true"),
        ({"age": None}, "/age", f"{NUMBER}, got null"),
        ({"age": [41]}, "/age", f"{NUMBER}, got a list of 1"),
        ({"age": 10**400}, "/age", f"{NUMBER}, got a whole number of 1329 bits"),
        ({"age": float("nan")}, "/age", f"{NUMBER}, got NaN"),
        ({"city": "paris"}, "/city", f"{CITY}, got 'paris'"),
        ({"city": 1}, "/city", f"{CITY}, got 1"),
        ({"city": None}, "/city", f"{CITY}, got null"),
        ({"city": ["rome"]}, "/city", f"{CITY}, got a list of 1"),
        ({"town": "rome"}, "/town", "unknown column; the columns are 'age', 'city', 'height'"),
        ({"a/b": 1}, "/a~1b", "unknown column; the columns are 'age', 'city', 'height'"),
    ],
)
def test_an_invalid_column_is_named_with_what_it_accepts(
    change: dict[str, Any], pointer: str, detail: str, *, model: Model
) -> None:
    assert faults(model, ROW, {**ROW, **change}) == {f"/rows/1{pointer}": detail}


def test_a_missing_column_is_named(model: Model) -> None:
    assert faults(model, {"age": 1, "height": 1}) == {"/rows/0/city": f"this column is required: {CITY}"}
    assert faults(model, {}) == {
        "/rows/0/age": f"this column is required: {NUMBER}",
        "/rows/0/city": f"this column is required: {CITY}",
        "/rows/0/height": "this column is required: expected a number of 0.5 to 2.5",
    }


def test_a_row_is_an_object(model: Model) -> None:
    expected = "expected an object with a value for each of 'age', 'city', 'height', got a list of 3"
    assert faults(model, ROW, [41, "oslo", 1.8]) == {"/rows/1": expected}


def test_every_invalid_place_is_listed_up_to_a_bound(model: Model) -> None:
    assert set(faults(model, {**ROW, "age": -1}, ROW, {**ROW, "city": "x", "height": 3})) == {
        "/rows/0/age", "/rows/2/city", "/rows/2/height",
    }  # fmt: skip
    assert len(faults(model, *[{}] * 8)) == 16


def test_bounds_count_in_float32(model: Model) -> None:
    column = model.manifest.reader.columns[0].model_copy(update={"low": 0.1, "high": 0.7})  # type: ignore[union-attr]
    reader = model.manifest.reader.model_copy(
        update={"columns": (column, *model.manifest.reader.columns[1:])}  # type: ignore[union-attr]
    )
    manifest = model.manifest.model_copy(update={"reader": reader})
    for age in (0.1, 0.7):
        assert read_rows([{**ROW, "age": age}], manifest, "")["numbers"][0, 0] == np.float32(age)
    with pytest.raises(EkibenError):
        read_rows([{**ROW, "age": 0.71}], manifest, "")


def test_the_domain_narrows_every_column(model: Model) -> None:
    manifest = model.manifest.model_copy(update={"domain": {"numbers": ValueRange(low=1, high=60)}})
    for change, detail in (
        ({"age": 61}, "expected a number of 1.0 to 60.0, got 61"),
        ({"height": 0.9}, "expected a number of 1.0 to 2.5, got 0.9"),
    ):
        with pytest.raises(EkibenError, match=detail):
            read_rows([{**ROW, **change}], manifest, "/rows")


def test_many_and_long_values_are_abbreviated(model: Model) -> None:
    columns = model.manifest.reader.columns  # type: ignore[union-attr]
    values = ("x" * 50, *(f"v{i}" for i in range(20)))
    column = columns[1].model_copy(update={"values": values})
    column.__dict__.pop("index", None)
    reader = model.manifest.reader.model_copy(update={"columns": (columns[0], column, columns[2])})
    manifest = model.manifest.model_copy(update={"reader": reader})
    with pytest.raises(EkibenError) as caught:
        read_rows([ROW], manifest, "")
    expected = f"expected one of '{'x' * 40}…', 'v0', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6' and 13 more, got 'oslo'"
    assert caught.value.faults[0].detail == expected


def test_a_request_has_rows(model: Model, runner: Runner) -> None:
    with pytest.raises(EkibenError, match="/rows: this field is required: tiny-customers reads rows"):
        asyncio.run(read(model, runner, {"rows": None}, runner.new_context()))
