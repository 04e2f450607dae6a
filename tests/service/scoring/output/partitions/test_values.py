"""Values as names of folders, compared with what pyarrow writes."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.output.partitions.values import NULL_PARTITION, folder_name, value_faults, value_texts
from service.scoring.sources.text.lines import JSON_TEXT

TEXTS = ["a b", "é", "a/b", "a=b", "x%20", "", "007", "a#?", "'q\"", "..", "~-_.", "\n", None]


def test_folders_are_those_of_pyarrow(tmp_path: Path) -> None:
    table = pa.table({"k": TEXTS, "i": range(len(TEXTS))})
    pads.write_dataset(table, tmp_path, format="parquet", partitioning=["k"], partitioning_flavor="hive")
    assert {path.name for path in tmp_path.iterdir()} == {folder_name("k", text) for text in TEXTS}


@given(st.text(max_size=20))
def test_a_folder_holds_its_value_in_characters_that_every_store_takes(text: str) -> None:
    from urllib.parse import unquote

    name, _, value = folder_name("a=b c", text).partition("=")
    assert (unquote(name), unquote(value)) == ("a=b c", text)
    assert value.isascii()
    assert not set(value) & set("/\\?#&* :")


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([1, None, -3], pa.int8(), ["1", None, "-3"]),
        ([True, False], pa.bool_(), ["true", "false"]),
        ([date(2024, 1, 31)], pa.date32(), ["2024-01-31"]),
        ([date(2024, 1, 31)], pa.date64(), ["2024-01-31"]),
        (["a"], pa.large_string(), ["a"]),
    ],
)
def test_values_are_texts(values: list[Any], kind: pa.DataType, texts: list[str | None]) -> None:
    assert value_texts(pa.array(values, kind), pa.field("k", kind)) == texts


def test_json_strings_lose_their_quotes() -> None:
    column = pa.array(['"a\\u00e9"', "3", "1.50", "true", None])
    assert value_texts(column, pa.field("k", pa.string(), metadata=JSON_TEXT)) == ["aé", "3", "1.50", "true", None]


def test_values_without_a_folder_are_faults() -> None:
    column = pa.array(["a", NULL_PARTITION, "x" * 253, "x" * 254, "é" * 43, None])
    faults = value_faults(column, pa.field("k", pa.string()), "k")
    assert sorted(faults) == [1, 3, 4]
    assert "means null" in faults[1]
    assert "too long" in faults[3]
