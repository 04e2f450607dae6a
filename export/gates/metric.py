"""The metric gate: on all examples, the graph computes what the reference computes, and scores what training recorded.

Every element of every output is compared, and then the scores. Training recorded its metrics before any graph existed,
so the scores reveal a mistake that export's reference and the graph share. An image generator has no labels; its own
discriminator, which is not exported, scores its samples. A model from elsewhere is scored by its head where its
examples have targets, and the score is recorded in its provenance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.backends import reference_backend, session_backend
from export.gates.cases import Array, Case, single_chunk
from export.gates.coverage.comparison import Comparison, Coverage
from export.gates.examples.example_cases import example_cases
from export.gates.examples.scores import Score
from export.gates.inputs.effort import output_rows
from training.batches import sequential_batches
from training.evaluation import evaluate_each
from training.families import FAMILIES, with_initial_state

# 0.1 percentage points of accuracy, or 0.001 nats of a loss.
MAX_DIFFERENCE = 0.001
# Windows of a language model that run together.
MAX_WINDOWS = 16
MAX_ITEMS = 256


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """Each score of the reference and of the graph, and the comparison of the outputs."""

    scores: dict[str, tuple[float, float]]
    coverage: Coverage


def check_metric(candidate: Candidate) -> MetricResult:
    """Compare all examples. Raises ExportError for an output out of tolerance, or a score that differs."""
    run = candidate.source.run
    if run is None:
        return _check_examples(candidate)
    pair = _Pair(candidate)
    score = _realness if run.recipe.family == "image-generator" else _scores
    torch_scores, graph_scores = score(candidate, pair)
    recorded = {name.removeprefix("test_"): value for name, value in run.checkpoint.metrics.items()}
    for name, value in graph_scores.items():
        _check_score(name, "PyTorch", torch_scores[name], value)
        if name in recorded:
            _check_score(name, "training", recorded[name], value)
    return MetricResult(
        scores={name: (torch_scores[name], graph_scores[name]) for name in graph_scores},
        coverage=pair.comparison.result(),
    )


def _check_examples(candidate: Candidate) -> MetricResult:
    source = candidate.source
    reference, session = reference_backend(source), session_backend(candidate.session)
    exact = reference_backend(source, float64=True)
    comparison = Comparison(candidate.manifest, "the examples", exact=exact, gate="metric")
    scores = Score(source), Score(source)
    for batch in example_cases(candidate):
        outputs = reference(batch.case), session(batch.case)
        comparison.add(batch.case, *outputs)
        for score, values in zip(scores, outputs, strict=True):
            if score.name is not None:
                score.add(values, batch)
    name = scores[0].name
    if name is None:
        return MetricResult(scores={}, coverage=comparison.result())
    expected, actual = (score.mean() for score in scores)
    if source.precision is not None and source.precision.kind == "tf32":
        # The precision gate has judged what the reference loses, which no session on a CPU computes.
        return MetricResult(scores={name: (expected, actual)}, coverage=comparison.result())
    size = max(1.0, abs(expected))
    _check_score(name, source.reference, expected, actual, size=size)
    recorded = source.provenance.metrics.get(f"test_{name}")
    if recorded is not None:
        _check_score(name, "its provenance", recorded, actual, size=size)
    return MetricResult(scores={name: (expected, actual)}, coverage=comparison.result())


def _check_score(name: str, source: str, expected: float, actual: float, *, size: float = 1.0) -> None:
    if not abs(actual - expected) <= MAX_DIFFERENCE * size:
        raise ExportError(
            "metric",
            f"{name} of the graph on the test split is {actual:.5f}, {source} had {expected:.5f}: "
            f"they differ by {abs(actual - expected):.2g}, at most {MAX_DIFFERENCE} is allowed",
        )


class _Pair:
    """PyTorch and the graph as predictors of the same batches, each of which goes to PyTorch first."""

    def __init__(self, candidate: Candidate) -> None:
        run = candidate.source.run
        assert run is not None
        exact = reference_backend(candidate.source, float64=True)
        self.comparison = Comparison(candidate.manifest, "the test split", exact=exact, gate="metric")
        self._run = run
        self._session = session_backend(candidate.session)
        self._expected: dict[str, Array] = {}
        self._num_items = 0

    def predict_torch(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = FAMILIES[self._run.recipe.family].predict(self._run.model, self._with_state(inputs))
        self._expected = {name: tensor.numpy() for name, tensor in outputs.items()}
        return outputs

    def predict_graph(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises ExportError if an output differs from PyTorch's."""
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in self._with_state(inputs).items()}
        chunks = None
        if self._run.recipe.family == "language-model":
            arrays["lengths"] = np.full(len(arrays["ids"]), arrays["ids"].shape[1])
            chunks = single_chunk(arrays["lengths"])
        batch = len(next(iter(arrays.values())))
        rows = tuple(f"item {self._num_items + row}" for row in range(batch))
        case = Case(name="by length" if "lengths" in arrays else "in order", inputs=arrays, chunks=chunks, rows=rows)
        outputs = self._session(case)
        self.comparison.add(case, self._expected, outputs)
        self._num_items += batch
        return {name: torch.from_numpy(array) for name, array in outputs.items()}

    def _with_state(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return with_initial_state(self._run.model, inputs) if self._run.recipe.family == "series-tagger" else inputs


def _scores(candidate: Candidate, pair: _Pair) -> list[dict[str, float]]:
    run = candidate.source.run
    assert run is not None
    batch_size = MAX_ITEMS
    if run.recipe.family == "language-model":
        batch_size = output_rows(candidate.manifest, run.test.inputs["ids"].shape[1], MAX_WINDOWS)
    return evaluate_each(run.recipe.family, [pair.predict_torch, pair.predict_graph], run.test, batch_size=batch_size)


def _realness(candidate: Candidate, pair: _Pair) -> list[dict[str, float]]:
    """The discriminator's mean probability that a sample is real."""
    run = candidate.source.run
    assert run is not None
    model: Any = run.model
    sums = [0.0, 0.0]
    for batch in sequential_batches(candidate.source.examples, MAX_ITEMS):
        inputs = {name: torch.from_numpy(array[batch]) for name, array in candidate.source.examples.inputs.items()}
        for number, predict in enumerate((pair.predict_torch, pair.predict_graph)):
            with torch.no_grad():
                sums[number] += model.discriminator(predict(inputs)["samples"]).sigmoid().sum().item()
    return [{"realness": total / len(candidate.source.examples)} for total in sums]
