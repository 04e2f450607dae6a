"""Texts and series of numbers: sorted by length, so that a batch is padded little, then put back in order.

That changes no answer: padding and batch mates never do (the bundle's invariance certificate).
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
from service.scoring.rows import Rows
from service.scoring.scorers.items import attempt, plain, reason, series_rows, split, values
from service.scoring.scorers.scored import BATCH, Scored, ranked
from service.tasks.codecs.series import pad_series, read_series
from service.tasks.codecs.states import pack_state, unpack_state
from service.tasks.codecs.texts import pad_ids, tokenize_each
from service.tasks.faults import type_fault


class TextScorer:
    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        assert isinstance(model.manifest.parameters, TextClassifier)
        self._model = model
        self._column = columns["text"]
        self._vocabulary = model.manifest.parameters.vocabulary
        self._labels = pa.array(model.manifest.parameters.labels)
        self._top_k: int = request.get("top_k", 1)
        self._truncate: bool = request.get("truncate", False)

    def score(self, rows: Rows) -> Scored:
        assert self._model.tokenizer is not None, "a text model has one"
        assert self._model.manifest.limits.max_steps is not None, "a text model has a limit"
        texts = _texts(values(plain(rows.columns[self._column])))
        found = tokenize_each(
            {f"/{i}": text for i, text in enumerate(texts)},
            self._model.tokenizer,
            vocabulary=self._vocabulary,
            max_steps=self._model.manifest.limits.max_steps,
            truncate=self._truncate,
        )
        kept, faults = split(found, rows.faults, self._column, numbered=True)
        ids = [row for row in (found[i] for i in kept) if not isinstance(row, EkibenError)]
        lengths = np.array([len(row) for row in ids], np.int64)
        probabilities = np.zeros((len(ids), len(self._labels)), np.float32)
        for batch in by_length(lengths):
            ids_BT, lengths_B = pad_ids([ids[i] for i in batch])
            answer = self._model.session.run({"ids": ids_BT, "lengths": lengths_B}, ["probabilities"])
            probabilities[batch] = answer["probabilities"]
        answers = ranked(probabilities, self._labels, self._top_k)
        answers["columns"]["tokens"] = pa.array(lengths.astype(np.int32))
        return Scored(kept=kept, faults=faults, **answers)

    def close(self) -> None:
        """Nothing to close."""


class SeriesScorer:
    """Series classifiers, and taggers, which also answer each step and give the state behind the last."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        assert isinstance(model.manifest.parameters, SeriesClassifier | SeriesTagger)
        self._model = model
        self._columns = columns
        self._parameters = model.manifest.parameters
        self._labels = pa.array(model.manifest.parameters.labels)
        self._top_k: int = request.get("top_k", 1)

    def score(self, rows: Rows) -> Scored:
        found = self._read(rows)
        kept, faults = split(found, rows.faults, self._columns["sequence"])
        series = [row for row in (found[i] for i in kept) if not isinstance(row, EkibenError)]
        if isinstance(self._parameters, SeriesTagger):
            return self._tag(rows, kept, series, faults)
        probabilities = np.zeros((len(series), len(self._labels)), np.float32)
        for batch in by_length(np.array([len(row) for row in series], np.int64)):
            inputs = _padded([series[i] for i in batch])
            probabilities[batch] = self._model.session.run(inputs, ["probabilities"])["probabilities"]
        return Scored(kept=kept, faults=faults, **ranked(probabilities, self._labels, self._top_k))

    def close(self) -> None:
        """Nothing to close."""

    def _read(self, rows: Rows) -> list[npt.NDArray[np.float32] | EkibenError]:
        items = series_rows(plain(rows.columns[self._columns["sequence"]]), self._parameters.channels)
        if "length" in self._columns:
            lengths = values(plain(rows.columns[self._columns["length"]]))
            items = [_Cut(row, length) for row, length in zip(items, lengths, strict=True)]
        return [attempt(self._read_one, item) for item in items]

    def _read_one(self, item: Any) -> npt.NDArray[np.float32]:
        row = item.cut() if isinstance(item, _Cut) else item
        limits = self._model.manifest.limits
        return read_series(row, channels=self._parameters.channels, max_steps=limits.max_steps, pointer="")

    def _tag(
        self, rows: Rows, kept: list[int], series: list[npt.NDArray[np.float32]], faults: dict[int, str]
    ) -> Scored:
        states, kept, series = self._states(rows, kept, series, faults)
        last = np.zeros((len(series), len(self._labels)), np.float32)
        steps: list[npt.NDArray[np.float32]] = [last[:0]] * len(series)
        packed = [""] * len(series)
        for batch in by_length(np.array([len(row) for row in series], np.int64)):
            h_B2LH = np.stack([states[i] for i in batch])
            state = {"h": np.ascontiguousarray(h_B2LH[:, 0]), "c": np.ascontiguousarray(h_B2LH[:, 1])}
            inputs = {**_padded([series[i] for i in batch]), **state}
            outputs = self._model.session.run(inputs, ["probabilities", "next_h", "next_c"])
            for place, i in enumerate(batch):
                steps[i] = outputs["probabilities"][place, : len(series[i])]
                last[i] = steps[i][-1]
                packed[i] = pack_state(self._model.manifest, outputs["next_h"][place], outputs["next_c"][place])
        answers = ranked(last, self._labels, self._top_k)
        answers["columns"]["steps"] = self._step_column(steps)
        answers["columns"]["state"] = pa.array(packed, pa.string())
        return Scored(kept=kept, faults=faults, **answers)

    def _states(
        self, rows: Rows, kept: list[int], series: list[npt.NDArray[np.float32]], faults: dict[int, str]
    ) -> tuple[list[npt.NDArray[np.float32]], list[int], list[npt.NDArray[np.float32]]]:
        """The state of each row, zero where there is no column of them; rows with a bad one become faults."""
        parameters, manifest = self._parameters, self._model.manifest
        assert isinstance(parameters, SeriesTagger)
        name = self._columns.get("state")
        texts = [None] * len(rows.numbers) if name is None else values(plain(rows.columns[name]))
        states = [attempt(lambda text: unpack_state(text, manifest, parameters, ""), texts[i]) for i in kept]
        for i, state in zip(kept, states, strict=True):
            if isinstance(state, EkibenError):
                faults[i] = reason(state, name or "state")
        good = [(state, i, row) for state, i, row in zip(states, kept, series, strict=True) if i not in faults]
        return [state for state, _, _ in good if not isinstance(state, EkibenError)], *(
            [i for _, i, _ in good],
            [row for _, _, row in good],
        )

    def _step_column(self, steps: Sequence[npt.NDArray[np.float32]]) -> pa.Array:
        flat = np.concatenate(steps) if steps else np.zeros((0, len(self._labels)), np.float32)
        columns = ranked(flat, self._labels, 1)["columns"]
        pairs = pa.StructArray.from_arrays([columns["label"], columns["probability"]], ["label", "probability"])
        offsets = np.cumsum([0, *(len(row) for row in steps)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pairs)


class _Cut:
    """A padded series and how much of it counts."""

    def __init__(self, row: Any, length: Any) -> None:
        self._row, self._length = row, length

    def cut(self) -> Any:
        if type(self._length) is not int or not 1 <= self._length <= len(self._row):
            raise type_fault("", f"a length of 1 to {len(self._row)}", self._length)
        return self._row[: self._length]


def by_length(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Indexes of rows in batches of similar length."""
    order = np.argsort(lengths, kind="stable")
    return [order[begin : begin + BATCH] for begin in range(0, len(order), BATCH)]


def _padded(series: list[npt.NDArray[np.float32]]) -> Tensors:
    series_BTC, lengths_B = pad_series(series)
    return {"series": series_BTC, "lengths": lengths_B}


def _texts(items: Sequence[Any]) -> Sequence[Any]:
    """Bytes that are UTF-8 become texts; others stay what they are and are refused as such."""
    return [_text(item) if isinstance(item, bytes) else item for item in items]


def _text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item
