"""The graph of a source, in a session of onnxruntime."""

from collections.abc import Mapping

import onnxruntime

from export.graph.exporter import export_program, strip_metadata
from export.source import Array, Source


class Graph:
    """Runs the exported graph of a source."""

    def __init__(self, source: Source) -> None:
        self.session = onnxruntime.InferenceSession(strip_metadata(export_program(source)))
        self.outputs = [spec.name for spec in source.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(inputs)), strict=True))
