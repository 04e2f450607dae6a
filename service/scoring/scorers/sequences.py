"""Scores texts and series of numbers, sorted by length so that batches need little padding, then restores their order.

Sorting changes no answer, because padding and the other rows of a batch change none (the bundle's batch invariance).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.bundle import Tensors
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.families import SeriesClassifier, SeriesTagger, TextClassifier
from service.scoring.input.rows import Rows
from service.scoring.scorers.items import reject_reason, series_arrays, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import BATCH_ROWS, ScoredRows, rank_columns
from service.tasks.codecs.series import pad_rows, read_series
from service.tasks.codecs.states import pack_state, unpack_state
from service.tasks.codecs.texts import tokenize_each
from service.tasks.faults import type_fault


class TextScorer:
    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        assert isinstance(model.manifest.parameters, TextClassifier)
        self._model = model
        self._column = columns["text"]
        self._labels = pa.array(model.manifest.parameters.labels)
        self._top_k: int = request.get("top_k", 1)
        self._truncate: bool = request.get("truncate", False)

    def score(self, rows: Rows) -> ScoredRows:
        texts = _decode_texts(to_python(unwrap(rows.columns[self._column])))
        pointers = {f"/{i}": text for i, text in enumerate(texts)}
        results = tokenize_each(pointers, self._model, truncate=self._truncate)
        indexes, faults = split_faults(results, rows.faults, self._column, numbered=True)
        ids = [row for row in (results[i] for i in indexes) if not isinstance(row, EkibenError)]
        lengths = np.array([len(row) for row in ids], np.int64)
        probabilities = np.zeros((len(ids), len(self._labels)), np.float32)
        for batch in length_batches(lengths):
            ids_BT, lengths_B = pad_rows([ids[i] for i in batch], np.int64)
            outputs = self._model.session.run({"ids": ids_BT, "lengths": lengths_B}, ["probabilities"])
            probabilities[batch] = outputs["probabilities"]
        ranking = rank_columns(probabilities, self._labels, self._top_k)
        ranking["columns"]["tokens"] = pa.array(lengths.astype(np.int32))
        return ScoredRows(indexes=indexes, faults=faults, **ranking)

    def close(self) -> None:
        """Nothing to close."""


class SeriesScorer:
    """Scores with a series classifier, or with a tagger, which also labels each step and returns a state."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        assert isinstance(model.manifest.parameters, SeriesClassifier | SeriesTagger)
        self._model = model
        self._columns = columns
        self._parameters = model.manifest.parameters
        self._labels = pa.array(model.manifest.parameters.labels)
        self._top_k: int = request.get("top_k", 1)

    def score(self, rows: Rows) -> ScoredRows:
        results = self._read(rows)
        indexes, faults = split_faults(results, rows.faults, self._columns["sequence"])
        series = [row for row in (results[i] for i in indexes) if not isinstance(row, EkibenError)]
        if isinstance(self._parameters, SeriesTagger):
            return self._tag(rows, indexes, series, faults)
        probabilities = np.zeros((len(series), len(self._labels)), np.float32)
        for batch in length_batches(np.array([len(row) for row in series], np.int64)):
            inputs = _padded_inputs([series[i] for i in batch])
            probabilities[batch] = self._model.session.run(inputs, ["probabilities"])["probabilities"]
        return ScoredRows(indexes=indexes, faults=faults, **rank_columns(probabilities, self._labels, self._top_k))

    def close(self) -> None:
        """Nothing to close."""

    def _read(self, rows: Rows) -> list[npt.NDArray[np.float32] | EkibenError]:
        items = series_arrays(unwrap(rows.columns[self._columns["sequence"]]), self._parameters.channels)
        if "length" in self._columns:
            lengths = to_python(unwrap(rows.columns[self._columns["length"]]))
            items = [PaddedSeries(row, length) for row, length in zip(items, lengths, strict=True)]
        return [try_read(self._read_one, item) for item in items]

    def _read_one(self, item: Any) -> npt.NDArray[np.float32]:
        row = item.valid_steps() if isinstance(item, PaddedSeries) else item
        limits = self._model.manifest.limits
        return read_series(row, channels=self._parameters.channels, max_steps=limits.max_steps, pointer="")

    def _tag(
        self, rows: Rows, indexes: list[int], series: list[npt.NDArray[np.float32]], faults: dict[int, str]
    ) -> ScoredRows:
        states, indexes, series = self._read_states(rows, indexes, series, faults)
        last = np.zeros((len(series), len(self._labels)), np.float32)
        steps: list[npt.NDArray[np.float32]] = [last[:0]] * len(series)
        packed = [""] * len(series)
        for batch in length_batches(np.array([len(row) for row in series], np.int64)):
            h_B2LH = np.stack([states[i] for i in batch])
            state = {"h": np.ascontiguousarray(h_B2LH[:, 0]), "c": np.ascontiguousarray(h_B2LH[:, 1])}
            inputs = {**_padded_inputs([series[i] for i in batch]), **state}
            outputs = self._model.session.run(inputs, ["probabilities", "next_h", "next_c"])
            for position, i in enumerate(batch):
                steps[i] = outputs["probabilities"][position, : len(series[i])]
                last[i] = steps[i][-1]
                packed[i] = pack_state(self._model.manifest, outputs["next_h"][position], outputs["next_c"][position])
        ranking = rank_columns(last, self._labels, self._top_k)
        ranking["columns"]["steps"] = self._step_column(steps)
        ranking["columns"]["state"] = pa.array(packed, pa.string())
        return ScoredRows(indexes=indexes, faults=faults, **ranking)

    def _read_states(
        self, rows: Rows, indexes: list[int], series: list[npt.NDArray[np.float32]], faults: dict[int, str]
    ) -> tuple[list[npt.NDArray[np.float32]], list[int], list[npt.NDArray[np.float32]]]:
        """The state of each row, zero if there is no column of states.

        Rows with an invalid state are added to `faults` and removed from `indexes` and `series`.
        """
        parameters, manifest = self._parameters, self._model.manifest
        assert isinstance(parameters, SeriesTagger)
        name = self._columns.get("state")
        texts = [None] * len(rows.numbers) if name is None else to_python(unwrap(rows.columns[name]))
        states = [try_read(lambda text: unpack_state(text, manifest, parameters, ""), texts[i]) for i in indexes]
        for i, state in zip(indexes, states, strict=True):
            if isinstance(state, EkibenError):
                faults[i] = reject_reason(state, name or "state")
        good = [(state, i, row) for state, i, row in zip(states, indexes, series, strict=True) if i not in faults]
        return [state for state, _, _ in good if not isinstance(state, EkibenError)], *(
            [i for _, i, _ in good],
            [row for _, _, row in good],
        )

    def _step_column(self, steps: Sequence[npt.NDArray[np.float32]]) -> pa.Array:
        """A list of label and probability of each step, one list per row."""
        flat = np.concatenate(steps) if steps else np.zeros((0, len(self._labels)), np.float32)
        columns = rank_columns(flat, self._labels, 1)["columns"]
        pairs = pa.StructArray.from_arrays([columns["label"], columns["probability"]], ["label", "probability"])
        offsets = np.cumsum([0, *(len(row) for row in steps)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pairs)


class PaddedSeries:
    """A padded series, and the number of its steps that are valid."""

    def __init__(self, row: Any, length: Any) -> None:
        self._row, self._length = row, length

    def valid_steps(self) -> Any:
        if type(self._length) is not int or not 1 <= self._length <= len(self._row):
            raise type_fault("", f"a length of 1 to {len(self._row)}", self._length)
        return self._row[: self._length]


def length_batches(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The indexes of rows, in batches of similar length."""
    order = np.argsort(lengths, kind="stable")
    return [order[begin : begin + BATCH_ROWS] for begin in range(0, len(order), BATCH_ROWS)]


def _padded_inputs(series: list[npt.NDArray[np.float32]]) -> Tensors:
    series_BTC, lengths_B = pad_rows(series, np.float32, series[0].shape[1])
    return {"series": series_BTC, "lengths": lengths_B}


def _decode_texts(items: Sequence[Any]) -> Sequence[Any]:
    """Decode bytes that are UTF-8. Other bytes stay bytes, which the task code rejects."""
    return [_decode_text(item) if isinstance(item, bytes) else item for item in items]


def _decode_text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item
