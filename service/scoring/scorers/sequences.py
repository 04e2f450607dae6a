"""Reads texts and series of numbers, sorted by length so that batches need little padding.

Sorting changes no answer, because padding and the other rows of a batch change none (the bundle's batch invariance).
"""

from collections.abc import Iterator, Sequence, Sized
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.bundle import Tensors
from service.contract.readers import SeriesReader, State
from service.drift.distributions import Distributions
from service.drift.statistics import Values, series_values, text_values
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import series_arrays, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import BATCH_ROWS, Items, Positions, Scorer
from service.tasks.codecs.series import pad_rows, read_series
from service.tasks.codecs.states import unpack_state
from service.tasks.codecs.texts import encode_each
from service.tasks.faults import type_fault


class TextScorer(Scorer):
    def _read(self, rows: Rows) -> Items:
        column = self._columns["text"]
        texts = _decode_texts(to_python(unwrap(rows.columns[column])))
        pointers = {f"/{i}": text for i, text in enumerate(texts)}
        results = encode_each(pointers, self._model, truncate=self._request.get("truncate", False))
        read, indexes, faults = split_faults(results, rows.faults, column, numbered=True)
        ids = [row.ids for row in read]
        has_tokens = self._manifest.head.kind == "token-labels"
        columns = {} if has_tokens else {"tokens": pa.array([len(row) for row in ids], pa.int32())}
        batches = _padded_batches("ids", ids, np.int64)

        def measure(part: slice, distributions: Distributions) -> Values:
            return text_values(ids[part], [row.text for row in read[part]], unknown_id=distributions.unknown_id)

        return Items(
            indexes=indexes,
            faults=faults,
            batches=batches,
            columns=columns,
            texts=read,
            measure=measure,
            num_read=len(read),
        )


class SeriesScorer(Scorer):
    def _read(self, rows: Rows) -> Items:
        reader, column = self._manifest.reader, self._columns["sequence"]
        assert isinstance(reader, SeriesReader)
        channels = reader.channels
        columns = [series_arrays(unwrap(rows.columns[column]), channels)]
        if "length" in self._columns:
            columns.append(to_python(unwrap(rows.columns[self._columns["length"]])))
        results = [try_read(self._read_one, channels, *row) for row in zip(*columns, strict=True)]
        series, indexes, faults = split_faults(results, rows.faults, column)
        measured: dict[str, Any] = {
            "measure": lambda part, _: series_values(list(series[part])),
            "num_read": len(series),
        }
        if reader.state is None:
            batches = _padded_batches("series", series, np.float32, channels)
            return Items(indexes=indexes, faults=faults, batches=batches, **measured)
        states, valid, invalid = self._read_states(rows, reader.state, indexes)
        faults |= {indexes[i]: reason for i, reason in invalid.items()}
        batches = _padded_batches("series", [series[i] for i in valid], np.float32, channels, states=states)
        return Items(indexes=[indexes[i] for i in valid], faults=faults, batches=batches, **measured)

    def _read_one(self, channels: int, row: Any, *length: Any) -> npt.NDArray[np.float32]:
        """Read a series; `length` is the number of valid steps of a padded one."""
        if length and isinstance(row, list | np.ndarray):
            if type(length[0]) is not int or not 1 <= length[0] <= len(row):
                raise type_fault("", f"a length of 1 to {len(row)}", length[0])
            row = row[: length[0]]
        return read_series(row, self._manifest, channels=channels, pointer="")

    def _read_states(
        self, rows: Rows, sizes: State, indexes: Sequence[int]
    ) -> tuple[list[npt.NDArray[np.float32]], list[int], dict[int, str]]:
        """The states of rows, the positions of those that could be read, and why the others could not."""
        column = self._columns.get("state")
        texts = to_python(unwrap(rows.columns[column])) if column else [None] * len(rows.numbers)
        results = [try_read(unpack_state, texts[i], self._manifest, sizes, "") for i in indexes]
        return split_faults(results, {}, column or "state")


def _padded_batches(
    name: str,
    rows: Sequence[Any],
    dtype: npt.DTypeLike,
    *width: int,
    states: Sequence[npt.NDArray[np.float32]] = (),
) -> Iterator[tuple[Positions, Tensors]]:
    """Yield rows as the input `name`, padded to the longest of their batch, with their lengths and states."""
    for batch in length_batches(rows):
        padded, lengths_B = pad_rows([rows[i] for i in batch], dtype, *width)
        inputs: Tensors = {name: padded, "lengths": lengths_B}
        if states:
            state_B2LH = np.stack([states[i] for i in batch])
            parts = (np.ascontiguousarray(state_B2LH[:, i]) for i in range(2))
            inputs = {**inputs, **dict(zip(("h", "c"), parts, strict=True))}
        yield batch, inputs


def length_batches(rows: Sequence[Sized]) -> list[npt.NDArray[np.int64]]:
    """The positions of rows, in batches of similar length."""
    order = np.argsort(np.array([len(row) for row in rows], np.int64), kind="stable")
    return [order[begin : begin + BATCH_ROWS] for begin in range(0, len(order), BATCH_ROWS)]


def _decode_texts(items: Sequence[Any]) -> Sequence[Any]:
    """Decode bytes that are UTF-8. Other bytes stay bytes, which the task code rejects."""
    decoded = list(items)
    for i, item in enumerate(items):
        if isinstance(item, bytes):
            with suppress(UnicodeDecodeError):
                decoded[i] = item.decode()
    return decoded
