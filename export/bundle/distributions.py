"""Measures the distributions of inputs and predictions that travel in the bundle, on the examples of the source.

The examples are held-out data: of a run its test split, which training never saw, so that the confidence is that of new
data. The predictions are those of the graph that is served. The same run gives the same bytes.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np

from export.candidate import Candidate
from export.gates.backends import session_backend
from export.gates.cases import Array
from export.gates.examples.example_cases import ExampleCase, example_cases
from service.bundle import MAX_FILE_BYTES
from service.contract.heads import MultilabelHead, ValuesHead
from service.contract.readers import ImageReader, SeriesReader, TableReader, TextReader
from service.drift.binning import bin_categories, bin_numbers
from service.drift.distributions import (
    CONFIDENCE,
    LABEL,
    Distribution,
    Distributions,
    count_confidence,
    prediction_names,
)
from service.drift.statistics import (
    Values,
    image_values,
    series_values,
    statistic_names,
    table_values,
    tensor_values,
    text_values,
)
from service.manifest import DISTRIBUTIONS, Manifest
from service.tasks.heads.multilabel import is_chosen
from service.tasks.heads.ranking import top_labels

# Of fewer examples, sampling noise alone looks like a large drift.
MIN_EXAMPLES = 200


def measure_distributions(candidate: Candidate) -> Distributions | None:
    """The distributions of the examples; None for a model that generates, or if there is too little data."""
    source, manifest = candidate.source, candidate.manifest
    names = (*statistic_names(manifest), *prediction_names(manifest))
    if not names or not source.has_data or len(source.examples) < MIN_EXAMPLES:
        return None
    unknown_id = _unknown_id(source.tokenizer)
    session = session_backend(candidate.session)
    inputs: list[Values] = []
    predictions: list[Values] = []
    for batch in example_cases(candidate):
        inputs.append(_input_values(candidate, batch, unknown_id))
        predictions.append(_prediction_values(manifest, batch, session(batch.case)))
    categories = {LABEL: len(manifest.labels)}
    if isinstance(manifest.reader, TableReader):
        categories = {column.name: len(column.values) for column in manifest.reader.categories}
    binned = {name: _bin(name, values, categories) for name, values in _joined(inputs)}
    predicted = {
        name: Distribution(counts=tuple(count_confidence(values).tolist()))
        if name == CONFIDENCE
        else _bin(name, values, {LABEL: len(manifest.labels)})
        for name, values in _joined(predictions)
    }
    is_run = (source.parent or source).run is not None
    subject = f"the test split of {source.provenance.dataset}" if is_run else "the examples of export"
    whole = Distributions(
        source=subject, rows=len(source.examples), inputs=binned, predictions=predicted, unknown_id=unknown_id
    )
    return _within_size(whole)


def _bin(name: str, values: Array, categories: Mapping[str, int]) -> Distribution:
    return bin_categories(values, categories[name]) if name in categories else bin_numbers(values)


def _joined(parts: list[Values]) -> Iterator[tuple[str, Array]]:
    for name in parts[0]:
        yield name, np.concatenate([part[name] for part in parts])


def _input_values(candidate: Candidate, batch: ExampleCase, unknown_id: int | None) -> Values:
    reader, inputs = candidate.manifest.reader, batch.case.inputs
    if isinstance(reader, ImageReader):
        return image_values(inputs["images"])
    if isinstance(reader, TableReader):
        return table_values(reader, inputs)
    if isinstance(reader, SeriesReader | TextReader):
        name = "series" if isinstance(reader, SeriesReader) else "ids"
        rows = [row[:length] for row, length in zip(inputs[name], inputs["lengths"], strict=True)]
        if isinstance(reader, SeriesReader):
            return series_values(rows)
        texts = candidate.source.examples.texts
        has_texts = len(texts) == len(candidate.source.examples)
        return text_values(rows, [texts[item] for item in batch.items] if has_texts else (), unknown_id=unknown_id)
    rows_of = range(len(batch.items))
    return tensor_values(
        candidate.manifest.inputs, [{name: a[i : i + 1] for name, a in inputs.items()} for i in rows_of]
    )


def _prediction_values(manifest: Manifest, batch: ExampleCase, outputs: Mapping[str, Array]) -> Values:
    """The predictions of a batch; a label is its index, and an item of several labels has several."""
    head = manifest.head
    if isinstance(head, ValuesHead):
        return {f"value {name}": outputs["values"][:, i] for i, name in enumerate(head.names)}
    if not prediction_names(manifest):
        return {}
    probabilities = outputs["probabilities"]
    if isinstance(head, MultilabelHead):
        return {LABEL: np.nonzero(is_chosen(probabilities, head.threshold))[1]}
    if probabilities.ndim == 3:
        probabilities = probabilities[np.arange(len(probabilities)), batch.case.inputs["lengths"] - 1]
    labels, confidence = top_labels(probabilities, 1)
    return {LABEL: labels[:, 0], CONFIDENCE: confidence[:, 0]}


def _unknown_id(tokenizer: str | None) -> int | None:
    """The token that a tokenizer gives for what it does not know; None if it knows everything."""
    if tokenizer is None:
        return None
    model = json.loads(tokenizer)["model"]
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    found = vocabulary.get(unknown) if isinstance(vocabulary, dict) else model.get("unk_id")
    return found if isinstance(found, int) else None


def _within_size(whole: Distributions) -> Distributions:
    """As many statistics of inputs, in order, as fit into the file."""
    inputs = dict(whole.inputs)
    fitting = whole
    while len(fitting.to_json()) > MAX_FILE_BYTES[DISTRIBUTIONS] and inputs:
        inputs = dict(list(inputs.items())[: len(inputs) * 9 // 10])
        fitting = whole.model_copy(update={"inputs": inputs, "left_out": len(whole.inputs) - len(inputs)})
    return fitting
