"""The distributions of a model's inputs and predictions on data that it was not trained on, as they travel in a bundle.

Invariant: bins are fixed at export, so that whoever compares other data with them only counts. Counts are integers,
hence sums of counts do not depend on their order.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from service.contract.heads import LabelsHead, MultilabelHead, TokenLabelsHead, ValuesHead
from service.contract.readers import TableReader
from service.contract.tensors import FrozenModel
from service.drift.statistics import Values, statistic_names
from service.manifest import Manifest

# Equal intervals of the confidence of predictions, from 0 to 1.
CONFIDENCE_BINS = 20
LABEL, CONFIDENCE = "label", "confidence"
MAX_DISTRIBUTIONS, MAX_BINS = 1 << 12, 1 << 16
# So small that sums over all bins are exact in 64 bits.
MAX_COUNT = 1 << 46
Counts = npt.NDArray[np.int64]


class Distribution(FrozenModel):
    """How many items fell into each bin. `edges` separate the bins of numbers; without edges a bin is a category."""

    edges: tuple[FiniteFloat, ...] = Field(default=(), max_length=MAX_BINS)
    counts: tuple[Annotated[int, Field(ge=0, le=MAX_COUNT)], ...] = Field(min_length=1, max_length=MAX_BINS)

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if self.edges and len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} counts and {len(self.edges)} edges; expected one count more")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges do not ascend")
        return self

    def count(self, values: npt.NDArray[Any]) -> Counts:
        """Return how many of the values are in each bin; a value on an edge is in the bin above it."""
        places = np.searchsorted(np.array(self.edges), values, side="right") if self.edges else values
        return np.bincount(places, minlength=len(self.counts))


class Distributions(FrozenModel):
    """The content of `distributions.json`.

    `source` says which data was measured, `rows` how many items it has. `inputs` has distributions of statistics of
    `service.drift.statistics`, `predictions` those of the label, the confidence, and each value that is predicted.
    `unknown_id` is the token that stands for unknown ones, if the tokenizer has one. `left_out` counts statistics that
    had no room in the file.
    """

    format_version: Literal[1] = 1
    source: str = Field(min_length=1, max_length=1000)
    rows: int = Field(ge=1)
    inputs: dict[str, Distribution] = Field(max_length=MAX_DISTRIBUTIONS)
    predictions: dict[str, Distribution] = Field(max_length=MAX_DISTRIBUTIONS)
    unknown_id: int | None = Field(default=None, ge=0)
    left_out: int = Field(default=0, ge=0)

    def check(self, manifest: Manifest) -> None:
        """Raise ValueError unless these are distributions of the model of this manifest."""
        _check_names("inputs", self.inputs, statistic_names(manifest))
        _check_names("predictions", self.predictions, prediction_names(manifest))
        sizes = {f"predictions.{LABEL}": len(manifest.labels), f"predictions.{CONFIDENCE}": CONFIDENCE_BINS}
        if isinstance(manifest.reader, TableReader):
            sizes |= {f"inputs.{column.name}": len(column.values) for column in manifest.reader.categories}
        for side, group in (("inputs", self.inputs), ("predictions", self.predictions)):
            for name, distribution in group.items():
                expected = sizes.get(f"{side}.{name}")
                if expected is not None and (distribution.edges or len(distribution.counts) != expected):
                    raise ValueError(f"{side} {name!r} has {len(distribution.counts)} counts, expected {expected}")
                if expected is None and not distribution.edges:
                    raise ValueError(f"{side} {name!r} has no edges, but its values are numbers")

    def count_inputs(self, values: Values) -> dict[str, Counts]:
        """Return how many items are in each bin of the distributions of inputs, by `input_key`."""
        return {input_key(name): self.inputs[name].count(values[name]) for name in self.inputs if name in values}

    def count_predictions(self, values: Values) -> dict[str, Counts]:
        """Return how many items are in each bin of these predictions, by `prediction_key`."""
        predictions = self.predictions
        return {prediction_key(name): predictions[name].count(values[name]) for name in predictions if name in values}

    def to_json(self) -> str:
        content = {"format_version": self.format_version, **self.model_dump(mode="json", exclude_defaults=True)}
        return json.dumps(content, ensure_ascii=False) + "\n"


def parse_distributions(content: bytes, manifest: Manifest) -> Distributions:
    """Parse `distributions.json` of a model. Raises ValueError."""
    try:
        distributions = Distributions.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"field {'.'.join(map(str, first['loc']))!r}: {first['msg']}") from error
    distributions.check(manifest)
    return distributions


def input_key(name: str) -> str:
    """The name of a statistic of inputs among those of a job."""
    return f"input {name}"


def prediction_key(name: str) -> str:
    """The name of a prediction among the statistics of a job."""
    return f"predicted {name}"


def prediction_names(manifest: Manifest) -> tuple[str, ...]:
    """The predictions of a model that have a distribution."""
    head = manifest.head
    if isinstance(head, ValuesHead):
        return tuple(f"value {name}" for name in head.names)
    if isinstance(head, MultilabelHead):
        return (LABEL,)
    # Tokens of one text are no independent items.
    is_label = isinstance(head, LabelsHead) or (isinstance(head, TokenLabelsHead) and manifest.reader.kind == "series")
    return (LABEL, CONFIDENCE) if is_label else ()


def count_confidence(confidence: npt.NDArray[np.float32]) -> Counts:
    """Return how many confidences are in each of the CONFIDENCE_BINS."""
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return np.bincount(bins, minlength=CONFIDENCE_BINS)


def _check_names(side: str, group: Mapping[str, Distribution], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(group) - set(known)):
        raise ValueError(f"{side} has {unknown[0]!r}, which is no statistic of this model")
