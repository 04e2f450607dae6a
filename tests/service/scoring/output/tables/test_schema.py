"""Types of tables that hold every value of a prediction, and tables that cannot take them."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from service.scoring.job import ScoringError
from service.scoring.output.tables.schema import check_fits, conform, table_type

PAIR = pa.struct([("label", pa.string()), ("probability", pa.float32())])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.int8(), pa.int8()),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("ms", "Europe/Rome"), pa.timestamp("us", "UTC")),
        (pa.date64(), pa.date32()),
        (pa.large_string(), pa.string()),
        (pa.binary(16), pa.binary()),
        (pa.null(), pa.string()),
        (pa.list_(pa.float32(), 3), pa.list_(pa.float32())),
        (pa.large_list(pa.list_(pa.uint8(), 2)), pa.list_(pa.list_(pa.int16()))),
        (pa.list_(PAIR), pa.list_(PAIR)),
        (pa.map_(pa.large_string(), pa.uint8()), pa.map_(pa.string(), pa.int16())),
    ],
)
def test_a_type_becomes_one_that_holds_its_values(kind: pa.DataType, expected: pa.DataType) -> None:
    assert table_type(kind) == expected


def test_the_largest_values_arrive() -> None:
    batch = pa.record_batch(
        {
            "a": pa.array([2**64 - 1, None], pa.uint64()),
            "b": pa.array([[255, 0], [1, 2]], pa.list_(pa.uint8(), 2)),
            "c": pa.array([1, 2], pa.timestamp("ms", "Europe/Rome")),
        }
    )
    target = pa.schema(
        [
            ("b", pa.large_list(pa.int16())),
            ("extra", pa.float64()),
            ("a", pa.decimal128(20, 0)),
            ("c", pa.timestamp("us", "UTC")),
        ]
    )
    [out] = conform([batch], target)
    assert out.schema == target
    assert out.column("a").to_pylist() == [Decimal(2**64 - 1), None]
    assert out.column("b").to_pylist() == [[255, 0], [1, 2]]
    assert out.column("c").cast(pa.int64()).to_pylist() == [1000, 2000]
    assert out.column("extra").null_count == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"row": pa.int64()}, "the table has no column 'label' (string); its columns are row"),
        ({"row": pa.int32(), "label": pa.string()}, "column 'row' of the table is int32, which does not hold int64"),
        ({"row": pa.float64(), "label": pa.string()}, "column 'row' of the table is double, which does not hold int64"),
    ],
)
def test_a_table_that_cannot_take_the_predictions(table: dict[str, Any], message: str) -> None:
    predictions = pa.schema([("row", pa.int64()), ("label", pa.string())])
    with pytest.raises(ScoringError) as raised:
        check_fits(pa.schema(list(table.items())), predictions, "T")
    assert str(raised.value).startswith(f"--append-to T: {message}")


def test_a_table_may_have_wider_and_further_columns() -> None:
    predictions = pa.schema([("row", pa.int32()), ("tags", pa.list_(pa.int16()))])
    wider = pa.schema([("tags", pa.large_list(pa.int64())), ("more", pa.string()), ("row", pa.int64())])
    check_fits(wider, predictions, "T")
    with pytest.raises(ScoringError, match="'more' of the table must not be null"):
        check_fits(wider.set(1, pa.field("more", pa.string(), nullable=False)), predictions, "T")
