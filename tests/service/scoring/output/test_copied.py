"""Kept columns in the type of the job and the form of the output."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import ScoringError, encode_schema
from service.scoring.output.copied import as_json, check_writable, to_output, with_copied
from service.scoring.sources.text.lines import JSON_TEXT
from tests.service.scoring.test_job import job_of

PARTITIONS = {"day": "monday", "none": "__HIVE_DEFAULT_PARTITION__"}
FILE = InputFile(uri="/a", name="a", format="parquet", size=0, fingerprint="", partitions=PARTITIONS)


def copied(column: Any, kind: pa.DataType, sink: str = "parquet") -> tuple[list[Any], dict[int, str]]:
    job = job_of(Path("/out"), sink=sink, copied_schema=encode_schema(pa.schema([("x", kind)])))
    rows = with_copied(job, FILE, Rows(numbers=range(len(column)), columns={"x": column}))
    return rows.copied["x"].to_pylist(), dict(rows.faults)


def test_columns_of_every_source_take_the_type_of_the_job() -> None:
    assert copied(pa.array([1, None], pa.int8()), pa.int64()) == ([1, None], {})
    assert copied(pa.array(["a", "b"]).dictionary_encode(), pa.large_string()) == (["a", "b"], {})
    assert copied(["a", None], pa.string()) == (["a", None], {})
    assert copied([b"a", None], pa.binary()) == ([b"a", None], {})
    assert copied(np.arange(4, dtype=np.uint8).reshape(2, 2), pa.list_(pa.uint8(), 2)) == ([[0, 1], [2, 3]], {})


def test_partitions_are_texts_or_null() -> None:
    job = job_of(Path("/out"), copied_schema=encode_schema(pa.schema([("day", pa.string()), ("none", pa.string())])))
    rows = with_copied(job, FILE, Rows(numbers=[0, 1], columns={}))
    assert {name: column.to_pylist() for name, column in rows.copied.items()} == {
        "day": ["monday"] * 2,
        "none": [None] * 2,
    }


def test_value_that_does_not_fit_is_a_fault_and_null() -> None:
    values, faults = copied(pa.array([1, 2**64 - 1, 3], pa.uint64()), pa.int64())
    assert values == [1, None, 3]
    assert faults == {1: "column 'x': the value does not fit int64, which the files of the job have in common"}


def test_fault_of_the_source_stays() -> None:
    job = job_of(Path("/out"), copied_schema=encode_schema(pa.schema([("x", pa.int8())])))
    rows = Rows(numbers=[0, 1], columns={"x": pa.array([1000, 1])}, faults={0: "unreadable", 1: "too"})
    assert dict(with_copied(job, FILE, rows).faults) == {0: "unreadable", 1: "too"}


@pytest.mark.parametrize("sink", ["csv", "jsonl"])
def test_times_far_away_and_near(sink: Any) -> None:
    texts, faults = to_output(pa.array([0, 10**15, None], pa.timestamp("ms")), sink)
    assert texts.to_pylist()[::2] == ["1970-01-01 00:00:00.000", None]
    assert list(faults) == [1]
    texts, faults = to_output(pa.array([[10**15], [0]], pa.list_(pa.timestamp("ms"))), sink)
    assert list(faults) == [0]


def test_json_has_no_nan() -> None:
    column = pa.array([0.5, float("nan"), None, float("inf")])
    assert list(to_output(column, "jsonl")[1]) == [1, 3]
    assert to_output(column, "csv")[1] == to_output(column, "parquet")[1] == {}
    nested = pa.array([[0.5], [float("nan")], None, [None]])
    assert list(to_output(nested, "jsonl")[1]) == list(to_output(nested, "csv")[1]) == [1]


def test_ids_of_rejects_are_exact_in_every_output() -> None:
    ns = pa.array([1, None], pa.timestamp("ns"))
    assert as_json(ns, pa.field("x", ns.type), [0, 1]) == ["1970-01-01 00:00:00.000000001", None]
    text = pa.array(["1.10", None])
    [first, second] = as_json(text, pa.field("x", pa.string(), metadata=JSON_TEXT), [0, 1])
    assert bytes(memoryview(first.contents)) == b"1.10" if hasattr(first, "contents") else first is not None
    assert second is None


def test_type_without_a_form_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"--keep x: a column month_day_nano_interval cannot be written"):
        check_writable(pa.schema([("x", pa.month_day_nano_interval())]), "parquet")
    check_writable(pa.schema([("x", pa.list_(pa.struct([("a", pa.decimal128(5, 2))])))]), "csv")


@pytest.mark.parametrize("sink", ["csv", "jsonl"])
def test_maps_are_lists_of_key_and_value(sink: Any) -> None:
    kind = pa.map_(pa.string(), pa.timestamp("ns"))
    texts, faults = to_output(pa.array([{"m": [("a", 1)]}, None], pa.struct([("m", kind)])), sink)
    assert texts.to_pylist() == ['{"m":[{"key":"a","value":"1970-01-01 00:00:00.000000001"}]}', None]
    assert faults == {}
