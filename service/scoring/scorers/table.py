"""Reads rows of a table: one column of the input for each column of the model.

Cells of text files are text: those of a number column are read as JSON numbers.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from service.bundle import Tensors
from service.contract.readers import NumberColumn, TableReader
from service.drift.statistics import table_values
from service.errors import EkibenError
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import reject_reason, to_python, unwrap
from service.scoring.scorers.scorer import BATCH_ROWS, Items, Scorer
from service.tasks.readers.table import read_rows


class TableScorer(Scorer):
    def _read(self, rows: Rows) -> Items:
        reader = self._manifest.reader
        assert isinstance(reader, TableReader)
        cells = [
            _cells(to_python(unwrap(rows.columns[self._columns[column.name]])), is_number=is_number)
            for column in reader.columns
            for is_number in [isinstance(column, NumberColumn)]
        ]
        names = [column.name for column in reader.columns]
        records = [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
        faults, indexes = dict(rows.faults), [i for i in range(len(records)) if i not in rows.faults]
        inputs = self._read_all(records, indexes)
        if inputs is None:
            for i in indexes:
                try:
                    read_rows([records[i]], self._manifest, "")
                except EkibenError as error:
                    faults[i] = reject_reason(error, "", "/0/")
            indexes = [i for i in indexes if i not in faults]
            inputs = self._read_all(records, indexes)
        assert inputs is not None, "the rows that are left were read one by one"
        parts = [slice(begin, begin + BATCH_ROWS) for begin in range(0, len(indexes), BATCH_ROWS)]
        batches = [(part, {name: value[part] for name, value in inputs.items()}) for part in parts]
        return Items(
            indexes=indexes,
            faults=faults,
            batches=batches,
            measure=lambda part, _: table_values(reader, {name: value[part] for name, value in inputs.items()}),
            num_read=len(indexes),
        )

    def _read_all(self, records: Sequence[dict[str, Any]], indexes: Sequence[int]) -> Tensors | None:
        """The tensors of these rows; None if one of them cannot be read."""
        if not indexes:
            return {}
        try:
            return read_rows([records[i] for i in indexes], self._manifest, "")
        except EkibenError:
            return None


def _cells(values: Sequence[Any], *, is_number: bool) -> list[Any]:
    return [_to_number(value) if is_number and isinstance(value, str) else value for value in values]


def _to_number(text: str) -> Any:
    """The number that a text is in JSON; the text itself if it is none."""
    try:
        return orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return text
