"""A model as a callable on batches, for frameworks that read, schedule and write themselves, as Ray Data and Spark do.

Invariant: a row gets the prediction that a scoring job gives to it, by the same scorer. A row that a job would reject
has null predictions and the reason in the column `error`.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.bundle import open_manifest
from service.engine.sessions.device import DeviceSetting, resolve_device
from service.errors import BundleError, DeviceError
from service.scoring.input.fields import map_columns
from service.scoring.input.rows import Column, Rows
from service.scoring.job import ScoringError
from service.scoring.job_options import check_request
from service.scoring.model import load_bundle, resolve_version
from service.scoring.output.join import free_name
from service.scoring.result import in_python
from service.scoring.scorers import scorer_type
from service.scoring.scorers.cells import to_python, unwrap
from service.scoring.scorers.scorer import ScoredRows, Scorer

ERROR = "error"


class EkibenPredictor:
    """Calls a model on one batch: a dict of numpy arrays, a pyarrow Table or a pandas DataFrame; returns the same kind.

    `columns` maps fields of the task to columns of the batch, and `request` sets fields of its request for every row,
    as in `score`. `keep` names the columns of the batch to return beside the predictions, by default all of them; one
    that is called like a prediction is returned as `input_NAME`.

    Raises ScoringError if the model cannot be loaded or the batch lacks its columns.
    """

    def __init__(
        self,
        model: str,
        *,
        bundles: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        request: Mapping[str, Any] | None = None,
        keep: Sequence[str] | None = None,
        device: DeviceSetting | None = None,
    ) -> None:
        root = Path(bundles or os.environ.get("EKIBEN_BUNDLES") or "bundles")
        self._columns, self._request, self._copied = dict(columns or {}), dict(request or {}), keep
        self._scorer: Scorer | None = None
        self._names: tuple[str, ...] = ()
        try:
            name, version = resolve_version(model, root)
            folder = root / name / version
            allow_tf32 = open_manifest(folder).allows_tf32
            self._model = load_bundle(folder, resolve_device(device, allow_tf32=allow_tf32))
            check_request(self._model.manifest, self._request)
        except (ScoringError, BundleError, DeviceError) as error:
            raise ScoringError(in_python(str(error))) from error
        manifest = self._model.manifest
        self._draws_images = manifest.task == "generate" and manifest.head.kind != "language-model"

    def __call__(self, batch: Any) -> Any:
        """Return the predictions and `error` of each row, beside the columns of the batch."""
        if isinstance(batch, pa.Table):
            answer = self._predict(_columns(batch), batch.num_rows)
            return pa.table({**self._copied_columns(batch, batch.column_names, answer), **answer})
        if isinstance(batch, Mapping):
            answer = self._predict({name: _items(values) for name, values in batch.items()}, _length(batch))
            predictions = {name: values.to_numpy(zero_copy_only=False) for name, values in answer.items()}
            return {**self._copied_columns(batch, list(batch), answer), **predictions}
        table = pa.Table.from_pandas(batch, preserve_index=False)
        answer = self._predict(_columns(table), table.num_rows)
        frame = pa.table(answer).to_pandas().set_index(batch.index)
        return frame.assign(**self._copied_columns(batch, table.column_names, answer))

    def _predict(self, columns: Mapping[str, Column], count: int) -> dict[str, pa.Array]:
        """One value per row of each column of the predictions, and of `error`."""
        try:
            scorer = self._scorer_of(tuple(columns))
        except ScoringError as error:
            raise ScoringError(in_python(str(error))) from error
        rows = Rows(numbers=range(count), columns=columns, faults=self._without_seed(columns))
        return _with_errors(scorer.score(rows), count)

    def _without_seed(self, columns: Mapping[str, Column]) -> dict[int, str]:
        """Why rows without a seed are rejected: a batch does not know their numbers, which seed them in a job."""
        if not self._draws_images:
            return {}
        column = self._columns.get("seed", "seed")
        seeds = to_python(unwrap(columns[column]))
        return {i: f"{column}: expected a seed, got null" for i, seed in enumerate(seeds) if seed is None}

    def _scorer_of(self, names: tuple[str, ...]) -> Scorer:
        """The scorer of batches with these columns."""
        if self._scorer is None or names != self._names:
            manifest = self._model.manifest
            mapped = map_columns(manifest, self._columns, names, reserved=self._copied or ())
            if self._draws_images and "seed" not in mapped:
                raise ScoringError(
                    f"{manifest.name}: batches need a column with the seed of each image, because equal seeds draw "
                    f"equal images; columns: {', '.join(map(repr, names)) or 'none'}"
                )
            self._scorer = scorer_type(manifest, "parquet")(self._model, mapped, self._request)
            self._names = names
            # Frameworks drop a predictor without a word.
            weakref.finalize(self, self._scorer.close)
        return self._scorer

    def _copied_columns(self, batch: Any, names: Sequence[str], answer: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of the batch to return, by their names in the result."""
        absent = [name for name in self._copied or () if name not in names]
        if absent:
            raise ScoringError(f"keep: no column {absent[0]!r}; available: {', '.join(map(repr, names))}")
        taken = {*names, *answer}
        chosen = [name for name in names if self._copied is None or name in self._copied]
        return {free_name(name, taken) if name in answer else name: batch[name] for name in chosen}


def _with_errors(scored: ScoredRows, count: int) -> dict[str, pa.Array]:
    positions = np.full(count, -1)
    positions[np.asarray(scored.indexes, np.int64)] = np.arange(len(scored.indexes))
    order = pa.array(positions, mask=positions < 0)
    columns = {name: column.take(order) for name, column in scored.columns.items()}
    return {**columns, ERROR: pa.array([scored.faults.get(i) for i in range(count)], pa.string())}


def _columns(table: pa.Table) -> dict[str, Column]:
    return {name: table[name].combine_chunks() for name in table.column_names}


def _items(values: npt.NDArray[Any]) -> Column:
    """A column of numpy; one of objects, such as texts and arrays of several shapes, as the values of a request."""
    return values if values.dtype != object else [_to_lists(value) for value in values]


def _to_lists(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return value.tolist() if value.dtype != object else [_to_lists(part) for part in value]


def _length(batch: Mapping[str, Any]) -> int:
    return len(next(iter(batch.values()), ()))
