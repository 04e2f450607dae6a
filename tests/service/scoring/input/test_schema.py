"""The type that files have in common, and the types without wrappers."""

from typing import Any

import pyarrow as pa
import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.schema import CommonSchema, common_type, leaf_types, unwrapped, unwrapped_type
from service.scoring.job import ScoringError


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.null(), pa.date32(), pa.date32()),
        (pa.date32(), pa.null(), pa.date32()),
        (pa.binary(4), pa.binary(), pa.binary()),
        (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.decimal128(5, 2), pa.decimal128(10, 4), pa.decimal128(10, 4)),
        (pa.list_(pa.int8()), pa.list_(pa.int16()), pa.list_(pa.int16())),
        (pa.int64(), pa.float64(), None),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.string(), pa.binary(), None),
        (pa.date32(), pa.timestamp("ms"), None),
        (pa.timestamp("ms"), pa.timestamp("ms", "UTC"), None),
        (pa.list_(pa.int8()), pa.list_(pa.float32()), None),
        (pa.list_(pa.int8()), pa.int8(), None),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), None),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int8()), ("b", pa.int8())]), None),
    ],
)
def test_common_type_holds_the_values_of_both_exactly(
    one: pa.DataType, other: pa.DataType, common: pa.DataType | None
) -> None:
    assert common_type(one, other) == common


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.array([1.5, None], pa.float16()),
        pa.array([[1.5], None], pa.list_(pa.float16())),
        pa.array([1, 1, 2]),
    ],
)
def test_plain_columns_hold_the_same_values(column: pa.Array) -> None:
    found = unwrapped(column)
    assert found.type == unwrapped_type(column.type)
    assert not any(pa.types.is_dictionary(leaf) or pa.types.is_float16(leaf) for leaf in leaf_types(found.type))
    assert found.to_pylist() == column.to_pylist()


def test_plain_uuids_are_texts() -> None:
    column = pa.array([bytes(range(16)), None], pa.uuid())
    assert unwrapped(column).to_pylist() == ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]
    assert unwrapped_type(column.type) == pa.string()


def file_of(name: str) -> InputFile:
    return InputFile(uri=f"/{name}", name=name, format="parquet", size=0, fingerprint="")


def common_of(*schemas: dict[str, pa.DataType], **options: Any) -> pa.Schema:
    options = {"copied": ["id"], "feeding": ["x"], "unfed": [], "is_closed": False, **options}
    common = CommonSchema(options.pop("copied"), options.pop("feeding"), **options)
    for i, schema in enumerate(schemas):
        common.add(file_of(f"{i}.parquet"), pa.schema(list(schema.items())))
    return common.copied()


def test_schema_widens_with_every_file() -> None:
    kinds = [pa.null(), pa.int8(), pa.int32(), pa.null(), pa.int16()]
    assert common_of(*({"id": kind, "x": pa.int64()} for kind in kinds)) == pa.schema([("id", pa.int32())])


def test_columns_of_the_model_may_mix_numbers() -> None:
    assert common_of({"id": pa.int8(), "x": pa.int64()}, {"id": pa.int8(), "x": pa.float64()}).names == ["id"]


@pytest.mark.parametrize(
    ("schemas", "options", "message"),
    [
        ([{"id": pa.int8(), "x": pa.int8()}, {"x": pa.int8()}], {}, "1.parquet: no column 'id'; available: 'x'"),
        (
            [{"id": pa.int8(), "x": pa.int8()}, {"id": pa.string(), "x": pa.int8()}],
            {},
            "1.parquet: column 'id' is string, in 0.parquet it is int8, and no type holds both exactly",
        ),
        (
            [{"id": pa.int8(), "x": pa.int8()}, {"id": pa.int8(), "x": pa.string()}],
            {},
            "1.parquet: column 'x' is string, in 0.parquet it is int8",
        ),
        ([{"id": pa.int8(), "x": pa.time32("s")}], {}, "0.parquet: column 'x' is time32.s., and no model reads times"),
        (
            [{"id": pa.int8(), "x": pa.int8()}, {"id": pa.int8(), "x": pa.int8(), "y": pa.int8()}],
            {"is_closed": True},
            "1.parquet: column 'y' is not in 0.parquet, and --keep '.' copies the same columns",
        ),
        (
            [{"id": pa.int8(), "x": pa.int8()}, {"id": pa.int8(), "x": pa.int8(), "seed": pa.int8()}],
            {"unfed": ["seed"]},
            "1.parquet: column 'seed' is a field of the model, and 0.parquet has no such column",
        ),
    ],
)
def test_files_that_differ_are_refused(
    schemas: list[dict[str, pa.DataType]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        common_of(*schemas, **options)
