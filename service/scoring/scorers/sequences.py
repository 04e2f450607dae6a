"""Scores texts and series of numbers, sorted by length so that batches need little padding, then restores their order.

Sorting changes no answer, because padding and the other rows of a batch change none (the bundle's batch invariance).
"""

from collections.abc import Sequence, Sized
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.bundle import Tensors
from service.contract.readers import SeriesReader, State
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import series_arrays, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import BATCH_ROWS, ScoredRows, Scorer, pair_lists, rank_columns
from service.tasks.codecs.series import pad_rows, read_series
from service.tasks.codecs.states import pack_state, unpack_state
from service.tasks.codecs.texts import tokenize_each
from service.tasks.faults import type_fault


class _SequenceScorer(Scorer):
    def _classify(
        self, name: str, rows: Sequence[Sized], dtype: npt.DTypeLike, *width: int
    ) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
        """Compute the probabilities of rows that are padded and given as the input `name`.

        The second result maps each row whose probabilities are not finite to the output.
        """
        not_finite: dict[int, str] = {}
        probabilities = np.zeros((len(rows), len(self._labels)), np.float32)
        for batch in length_batches(rows):
            padded, lengths_B = pad_rows([rows[i] for i in batch], dtype, *width)
            inputs = {name: padded, "lengths": lengths_B}
            outputs = self._model.session.run(inputs, ["probabilities"])
            not_finite |= {int(batch[i]): name for i, name in self._output_check.bad_rows(outputs, inputs).items()}
            probabilities[batch] = outputs["probabilities"]
        return probabilities, not_finite


class TextScorer(_SequenceScorer):
    def score(self, rows: Rows) -> ScoredRows:
        column = self._columns["text"]
        texts = _decode_texts(to_python(unwrap(rows.columns[column])))
        pointers = {f"/{i}": text for i, text in enumerate(texts)}
        results = tokenize_each(pointers, self._model, truncate=self._request.get("truncate", False))
        ids, indexes, faults = split_faults(results, rows.faults, column, numbered=True)
        tokens = pa.array([len(row) for row in ids], pa.int32())
        return self._rank((indexes, faults), *self._classify("ids", ids, np.int64), tokens=tokens)


class SeriesScorer(_SequenceScorer):
    """Scores with a series classifier, or with a tagger, which also labels each step and returns a state."""

    def score(self, rows: Rows) -> ScoredRows:
        reader, column = self._model.manifest.reader, self._columns["sequence"]
        assert isinstance(reader, SeriesReader)
        channels = reader.channels
        columns = [series_arrays(unwrap(rows.columns[column]), channels)]
        if "length" in self._columns:
            columns.append(to_python(unwrap(rows.columns[self._columns["length"]])))
        results = [try_read(self._read_one, channels, *row) for row in zip(*columns, strict=True)]
        series, indexes, faults = split_faults(results, rows.faults, column)
        if reader.state is not None:
            return self._tag(rows, reader.state, indexes, series, faults)
        return self._rank((indexes, faults), *self._classify("series", series, np.float32, channels))

    def _read_one(self, channels: int, row: Any, *length: Any) -> npt.NDArray[np.float32]:
        """Read a series; `length` is the number of valid steps of a padded one."""
        if length and isinstance(row, list | np.ndarray):
            if type(length[0]) is not int or not 1 <= length[0] <= len(row):
                raise type_fault("", f"a length of 1 to {len(row)}", length[0])
            row = row[: length[0]]
        return read_series(row, self._model.manifest, channels=channels, pointer="")

    def _tag(
        self,
        rows: Rows,
        sizes: State,
        indexes: list[int],
        series: list[npt.NDArray[np.float32]],
        faults: dict[int, str],
    ) -> ScoredRows:
        manifest, column = self._model.manifest, self._columns.get("state")
        texts = to_python(unwrap(rows.columns[column])) if column else [None] * len(rows.numbers)
        results = [try_read(unpack_state, texts[i], manifest, sizes, "") for i in indexes]
        states, valid, invalid = split_faults(results, {}, column or "state")
        faults |= {indexes[i]: reason for i, reason in invalid.items()}
        indexes, series = [indexes[i] for i in valid], [series[i] for i in valid]
        last = np.zeros((len(series), len(self._labels)), np.float32)
        steps: list[npt.NDArray[np.float32]] = [last[:0]] * len(series)
        packed = [""] * len(series)
        not_finite: dict[int, str] = {}
        for batch in length_batches(series):
            h_B2LH = np.stack([states[i] for i in batch])
            state = {"h": np.ascontiguousarray(h_B2LH[:, 0]), "c": np.ascontiguousarray(h_B2LH[:, 1])}
            series_BTC, lengths_B = pad_rows([series[i] for i in batch], np.float32, series[0].shape[1])
            inputs: Tensors = {"series": series_BTC, "lengths": lengths_B, **state}
            outputs = self._model.session.run(inputs, ["probabilities", "next_h", "next_c"])
            not_finite |= {int(batch[i]): name for i, name in self._output_check.bad_rows(outputs, inputs).items()}
            for position, i in enumerate(batch):
                steps[i] = outputs["probabilities"][position, : len(series[i])]
                last[i] = steps[i][-1]
                packed[i] = pack_state(manifest, outputs["next_h"][position], outputs["next_c"][position])
        flat = rank_columns(np.concatenate([last[:0], *steps]), self._labels, 1)["columns"]
        offsets = np.cumsum([0, *(len(row) for row in steps)])
        return self._rank(
            (indexes, faults),
            last,
            not_finite,
            steps=pair_lists(flat["label"], flat["probability"], offsets),
            state=pa.array(packed, pa.string()),
        )


def length_batches(rows: Sequence[Sized]) -> list[npt.NDArray[np.int64]]:
    """The indexes of rows, in batches of similar length."""
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
