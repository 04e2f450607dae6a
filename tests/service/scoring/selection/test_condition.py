"""Conditions: the rows that fulfil them, by the types of their columns, and what is refused."""

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from service.scoring.job import ScoringError
from service.scoring.selection.condition import Condition

BIG = 2**53 + 1
COLUMNS: dict[str, Any] = {
    "age": pa.array([20, 31, None, 90], pa.int8()),
    "big": pa.array([BIG, BIG - 1, 0, None], pa.int64()),
    "city": pa.array(["Rome", "Oslo", "Rome", None]).dictionary_encode(),
    "price": pa.array([Decimal("0.10"), Decimal("2.00"), None, Decimal("0.30")]),
    "day": pa.array([date(2024, 1, i) for i in (1, 2, 3, 4)]),
    "flag": pa.array([True, False, None, True]),
    "x": pa.array([0.1, float("nan"), -1.5, 3], pa.float32()),
    "doc.n": pa.array([1, 2, 3, 4]),
    "texts": ["30", "31.0", "", None],
    "json": [1, 2.5, None, 2**70],
    "nothing": pa.nulls(4),
    "my col": pa.array([1, 1, 2, 2]),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("age > 30 and city == 'Rome'", []),
        ("age > 30 or city == 'Rome'", [0, 1, 2, 3]),
        ("age is null", [2]),
        ("age is not None and not (age > 30)", [0]),
        ("not age > 30", [0]),
        ("30 < age", [1, 3]),
        ("20 <= age < 90", [0, 1]),
        ("age < 300", [0, 1, 3]),
        ("age > 20.5", [1, 3]),
        ("age != 20", [1, 3]),
        ("age >= -1000", [0, 1, 3]),
        (f"big == {BIG}", [0]),
        (f"big == {float(BIG)}", [1]),
        ("city in ('Rome', 'Bern')", [0, 2]),
        ("city not in ['Rome']", [1]),
        ("city in ('Rome')", [0, 2]),
        ("price == 0.1 or price == 0.3", [0, 3]),
        ("day >= '2024-01-03'", [2, 3]),
        ("flag", [0, 3]),
        ("flag == false", [1]),
        ("x == 0.1", [0]),
        ("x <= 3", [0, 2, 3]),
        ("doc.n in (1, 4)", [0, 3]),
        ("texts > 30", [1]),
        ("texts == '31.0'", [1]),
        (f"json == {2**70}", [3]),
        ("json > 2", [1, 3]),
        ("nothing == 1", []),
        ("nothing is null", [0, 1, 2, 3]),
        ("col('my col') == 2", [2, 3]),
    ],
)
def test_rows_that_fulfil_a_condition(text: str, rows: list[int]) -> None:
    fulfilled, faults = Condition(text).evaluate(COLUMNS.__getitem__)
    assert faults == {}
    assert [i for i, value in enumerate(fulfilled.to_pylist()) if value] == rows


def test_value_of_another_kind_is_a_fault_of_its_row() -> None:
    values = {"n": ["1", "x", "1_0"], "t": ["a", 5, None], "b": [True, 1, "TRUE"]}
    for text, expected in (("n > 0", [1, 2]), ("t == 'a'", [1]), ("b == true", [1])):
        _, faults = Condition(text).evaluate(values.__getitem__)
        assert sorted(faults) == expected
    assert Condition("n > 0").evaluate(values.__getitem__)[1][1] == "column 'n': 'x' cannot be compared with 0"


@pytest.mark.parametrize(
    "text",
    [
        *("", "age >", "1 == 1", "age == city", "age == null", "f(age) > 1", "age + 1 > 2", "age > 1; x", "age is 3"),
        *("age in ()", "__import__('os').system('x')", "age[0] == 1", "age == (1).real", "(" * 500, "age > 1\x00"),
        *("lambda: 1", "age == b'x'", "age == f'{age}'", "age in (1, null)", "age in city", "not 1", "x" * 20_000),
    ],
)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(ScoringError, match="--where"):
        Condition(text)


@pytest.mark.parametrize(
    "text", ["age == 'x'", "city > true and age > 1 and age == true", "day > 3", "day > 'x'", "l == 1"]
)
def test_types_that_cannot_be_compared_are_refused(text: str) -> None:
    kinds = {"age": pa.int64(), "city": pa.string(), "day": pa.date32(), "l": pa.list_(pa.int8())}
    with pytest.raises(ScoringError, match=r"column '\w+' is"):
        Condition(text).check(kinds)


def test_columns_are_named_once() -> None:
    assert Condition("a > 1 and b.c == 'x' or a < 0 and col('d e') is null").columns == ["a", "b.c", "d e"]
