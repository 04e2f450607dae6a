"""The `.ts` format of the UEA & UCR archive of time series: a header of `@` lines, then a series in each line.

Columns: `sequence` [steps][channels], and `label` if the file has class labels. A row is a line of data and has its
number. Series may differ in length; one with a missing value (`?` or NaN) is one fault.
"""

from contextlib import closing
from typing import Any

import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.input.rows import ReadSpec
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream, blocks
from service.scoring.sources.text.encoding import BOM, text_encoding
from service.scoring.sources.text.lines import TextSource

MAX_HEADER_LINES = 10_000


class TsSource(TextSource):
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        super().__init__(file, spec)
        self._has_labels = _has_labels(file, spec.text_options)

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        label = [("label", pa.string())] if _has_labels(file, text_options) else []
        return pa.schema([("sequence", pa.list_(pa.list_(pa.float64()))), *label])

    def _is_row(self, line: bytes) -> bool:
        return bool(line.strip()) and not line.lstrip().startswith((b"@", b"#", b"%"))

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        text, fault = super()._parse(line)
        if fault:
            return None, fault
        dimensions = text.strip().split(":")
        label = dimensions.pop().strip() if self._has_labels else None
        if not dimensions:
            return None, "expected a series before the label"
        channels: list[list[float]] = []
        for number, dimension in enumerate(dimensions):
            try:
                channels.append([float(value) for value in dimension.split(",")])
            except ValueError as error:
                return None, f"channel {number}: {error}"
        if len(set(map(len, channels))) != 1:
            return None, f"expected channels of one length, got {', '.join(str(len(channel)) for channel in channels)}"
        return {"sequence": [list(step) for step in zip(*channels, strict=True)], "label": label}, None

    def _columns(self, values: list[Any]) -> dict[str, list[Any]]:
        return {name: [value and value[name] for value in values] for name in self._spec.columns}


def _has_labels(file: InputFile, text_options: TextOptions) -> bool:
    """Whether series have class labels. Raises ScoringError for a header without data, or with time stamps."""
    has_labels = False
    with closing(Stream(file, text_encoding(file, text_options))) as stream:
        lines = (line for block in blocks(stream) for line in block.content.removeprefix(BOM).split(b"\n"))
        for _, line in zip(range(MAX_HEADER_LINES), lines, strict=False):
            words = line.decode("utf-8", "replace").lower().split()
            if words[:1] == ["@data"]:
                return has_labels
            if words[:2] == ["@timestamps", "true"]:
                raise ScoringError(f"{file.name}: series with time stamps are not supported")
            if words[:1] in (["@classlabel"], ["@targetlabel"]):
                has_labels = words[1:2] == ["true"]
    raise ScoringError(f"{file.name}: not a .ts file: there is no line @data")
