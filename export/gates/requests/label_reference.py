"""The reference's probabilities of a classifier's labels, and the test items in which each label ranks first.

A request in which a label ranks first names that label at the head of its answer, whatever the tolerance: labels that
changed places in a manifest cannot pass its replay.

Shapes: B batch, T steps, L labels.
"""

import numpy as np

from export.candidate import Candidate
from export.gates.backends import reference_backend
from export.gates.cases import Array, Case
from service.contract.readers import SeriesReader
from training.recipe import Split

BATCH = 256
MAX_ITEMS = 10_000


def label_probabilities(candidate: Candidate, inputs: dict[str, Array]) -> Array:
    """The reference's probabilities, [B, L]; of a tagger, which starts from its initial state, [B, T, L]."""
    reader = candidate.manifest.reader
    if isinstance(reader, SeriesReader) and reader.state is not None:
        zeros = np.zeros((len(inputs["lengths"]), reader.state.layers, reader.state.hidden), np.float32)
        inputs = {**inputs, "h": zeros, "c": zeros}
    return reference_backend(candidate.source)(Case(name="request", inputs=inputs))["probabilities"]


def items_by_label(candidate: Candidate) -> list[int]:
    """For each label the test item in which it ranks first by the largest margin; no item if it ranks first in none."""
    split = candidate.source.examples
    items = np.array(whole_items(split)[:MAX_ITEMS])
    batches = [_final_probabilities(candidate, items[i : i + BATCH]) for i in range(0, len(items), BATCH)]
    probabilities_BL = np.concatenate(batches)
    first_B = probabilities_BL.argmax(1)
    runner_up_B = np.partition(probabilities_BL, -2, axis=1)[:, -2] if probabilities_BL.shape[1] > 1 else 0
    margin_B = probabilities_BL.max(1) - runner_up_B
    num_labels = len(candidate.source.labels)
    rows = (np.flatnonzero(first_B == label) for label in range(num_labels))
    return [int(items[row[margin_B[row].argmax()]]) for row in rows if row.size]


def whole_items(split: Split) -> list[int]:
    """The items that training has not cut; of a text it may hold only the first ids."""
    if not split.texts:
        return list(range(len(split)))
    lengths_B = split.inputs["lengths"]
    return np.flatnonzero(lengths_B < lengths_B.max()).tolist() or list(range(len(split)))


def _final_probabilities(candidate: Candidate, items: Array) -> Array:
    """[B, L], those of a tagger after the last step."""
    inputs = {name: array[items] for name, array in candidate.source.examples.inputs.items()}
    probabilities = label_probabilities(candidate, inputs)
    return probabilities[np.arange(len(items)), inputs["lengths"] - 1] if probabilities.ndim == 3 else probabilities
