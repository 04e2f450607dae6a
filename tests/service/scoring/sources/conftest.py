"""Reads a whole file, span by span, in random order."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.scoring.input.files import list_files
from service.scoring.input.rows import ReadSpec, Span
from service.scoring.job import TextOptions
from service.scoring.sources import SOURCES

Read = Callable[..., list[tuple[int, dict[str, Any], str | None]]]


def spans_of(path: Path, shard_rows: int, *, header: bool = True, input_format: Any = None) -> list[Span]:
    [file] = list_files([str(path)], output=Path("/nowhere"), input_format=input_format)
    source = SOURCES[file.format]
    text_options = TextOptions(header=header)
    spec = ReadSpec(columns=tuple(source.schema(file, text_options).names), text_options=text_options)
    with closing(source(file, spec)) as opened:
        return list(opened.spans(shard_rows=shard_rows))


@pytest.fixture
def read() -> Read:
    """read(path, shard_rows) -> (number, values, fault) of every row; spans are read in a random order."""
    return read_all


def read_all(path: Path, shard_rows: int = 7, *, input_format: Any = None, seed: int = 0, **text_options: Any) -> Any:
    [file] = list_files([str(path)], output=Path("/nowhere"), input_format=input_format)
    source = SOURCES[file.format]
    text_options = TextOptions(**text_options)
    spec = ReadSpec(columns=tuple(source.schema(file, text_options).names), text_options=text_options)
    with closing(source(file, spec)) as planned:
        spans = list(planned.spans(shard_rows=shard_rows))
    random.Random(seed).shuffle(spans)
    reader = source(file, spec)
    found = []
    for span in spans:
        rows = [row for part in reader.read(span) for row in _rows(part)]
        assert all(span.first_row <= number < span.first_row + span.rows for number, _, _ in rows)
        found += rows
    reader.close()
    return sorted(found, key=lambda row: row[0])


def _rows(part: Any) -> list[tuple[int, dict[str, Any], str | None]]:
    columns = {
        name: column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        for name, column in part.columns.items()
    }
    return [
        (int(number), {name: column[i] for name, column in columns.items()}, part.faults.get(i))
        for i, number in enumerate(part.numbers)
    ]
