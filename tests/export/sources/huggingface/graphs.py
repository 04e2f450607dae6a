"""The graph of a source, in a session of onnxruntime."""

from collections.abc import Mapping
from functools import cached_property

import onnxruntime

from export.graph.exporter import export_program, strip_metadata
from export.source import Array, Source


class Graph:
    """Runs the graph of a source, which is exported when it is first needed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.outputs = [spec.name for spec in source.outputs]

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(strip_metadata(export_program(self.source)))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(inputs)), strict=True))
