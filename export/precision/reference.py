"""The reference of a variant: a graph in float32, run by onnxruntime without any optimisation."""

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from export.source import Array
from service.contract.heads import Head, LanguageModelHead
from service.contract.readers import Reader

LENGTHS, PAST_LENGTHS = "lengths", "past_lengths"


class GraphReference:
    """A callable of the graph's inputs; of a language model, the tokens alone are enough."""

    def __init__(self, model: bytes, reader: Reader, head: Head) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._reader, self._head = reader, head

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name."""
        given = dict(inputs)
        if isinstance(self._head, LanguageModelHead):
            given = self._without_past(given["ids"])
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))

    def _without_past(self, ids_BT: Array) -> dict[str, Array]:
        """All tokens of each row in one run, with an empty cache."""
        inputs = {"ids": ids_BT, PAST_LENGTHS: np.zeros(len(ids_BT), np.int64)}
        for value in self._session.get_inputs():
            if value.name not in inputs:
                sizes = {"batch": len(ids_BT), "past": 0}
                inputs[value.name] = np.zeros([sizes.get(axis, axis) for axis in value.shape], np.float32)
        return inputs
