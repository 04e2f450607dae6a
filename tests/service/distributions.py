"""The distributions of the tiny bundles, measured on random items like those of `tests.service.scoring.inputs`."""

import functools

import numpy as np
import onnxruntime as ort

from service.drift.binning import bin_categories, bin_numbers
from service.drift.distributions import Distribution, Distributions, count_confidence
from service.drift.statistics import Values, image_values, series_values, text_values
from service.manifest import DISTRIBUTIONS
from tests.service.bundles import HEADS, example_inputs, onnx_model

ITEMS = 400


@functools.cache
def distributions(family: str) -> Distributions:
    inputs = example_inputs(family, batch=ITEMS, seed=9)
    session = ort.InferenceSession(onnx_model(family).SerializeToString(), providers=["CPUExecutionProvider"])
    [probabilities] = session.run(["probabilities"], inputs)
    if probabilities.ndim == 3:
        probabilities = probabilities[np.arange(ITEMS), inputs["lengths"] - 1]
    labels, confidence = probabilities.argmax(-1), probabilities.max(-1)
    values = input_values(inputs)
    return Distributions(
        source="random items",
        rows=ITEMS,
        inputs={name: bin_numbers(value) for name, value in values.items()},
        predictions={
            "label": bin_categories(labels, len(HEADS[family]["labels"])),
            "confidence": Distribution(counts=tuple(count_confidence(confidence).tolist())),
        },
        unknown_id=0 if family == "text-classifier" else None,
    )


def input_values(inputs: dict[str, np.ndarray]) -> Values:  # type: ignore[type-arg]
    """The statistics of inputs of a tiny model."""
    if "images" in inputs:
        return image_values(inputs["images"])
    name = "series" if "series" in inputs else "ids"
    rows = [row[:length] for row, length in zip(inputs[name], inputs["lengths"], strict=True)]
    return series_values(rows) if name == "series" else text_values(rows, (), unknown_id=0)


def distribution_files(family: str) -> dict[str, bytes]:
    """The file of a family that classifies; none for one that generates."""
    if "labels" not in HEADS[family]:
        return {}
    return {DISTRIBUTIONS: distributions(family).to_json().encode()}
