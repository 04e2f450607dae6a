"""Gate 3, metric: on the test split, the graph scores what the PyTorch model scores and what training recorded.

Training recorded its metrics before any graph existed, so this gate finds a mistake that export's reference and the
graph share. An image generator has no labels; its own discriminator, which is not exported, scores its samples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.backends import Backend, session_backend, torch_backend
from export.gates.cases import Case, single_chunk
from training.batches import subsample
from training.evaluation import evaluate
from training.families import with_initial_state
from training.recipe import Split

# 0.1 percentage points of accuracy, or 0.001 nats of a loss.
MAX_DIFFERENCE = 0.001
MAX_ITEMS = 10_000
MAX_WINDOWS = 32


def check_metric(candidate: Candidate) -> dict[str, tuple[float, float]]:
    """Return each score of PyTorch and of the graph. Raises ExportError if they differ by more than MAX_DIFFERENCE."""
    run = candidate.run
    split = subsample(run.test, MAX_WINDOWS if run.recipe.family == "language-model" else MAX_ITEMS)
    score = _realness if run.recipe.family == "image-generator" else _scores
    torch_scores = score(candidate, torch_backend(run), split)
    graph_scores = score(candidate, session_backend(candidate.session), split)
    recorded = {name.removeprefix("test_"): value for name, value in run.checkpoint.metrics.items()}
    for name, value in graph_scores.items():
        _check_score(name, "PyTorch", torch_scores[name], value)
        if name in recorded and len(split) == len(run.test):
            _check_score(name, "training", recorded[name], value)
    return {name: (torch_scores[name], graph_scores[name]) for name in graph_scores}


def _check_score(name: str, source: str, expected: float, actual: float) -> None:
    if not abs(actual - expected) <= MAX_DIFFERENCE:
        raise ExportError(
            "metric",
            f"{name} of the graph on the test split is {actual:.5f}, {source} had {expected:.5f}: "
            f"they differ by {abs(actual - expected):.2g}, at most {MAX_DIFFERENCE} is allowed",
        )


def _scores(candidate: Candidate, backend: Backend, split: Split) -> dict[str, float]:
    return evaluate(candidate.run.recipe.family, _tensor_function(candidate, backend), split)


def _tensor_function(candidate: Candidate, backend: Backend) -> Callable[[dict[str, Tensor]], Mapping[str, Tensor]]:
    """The backend as a function of tensors, as the evaluation of training expects it."""
    family, model = candidate.run.recipe.family, candidate.run.model

    def compute(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = dict(with_initial_state(model, inputs)) if family == "series-tagger" else inputs
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}
        chunks = None
        if family == "language-model":
            arrays["lengths"] = np.full(len(arrays["ids"]), arrays["ids"].shape[1])
            chunks = single_chunk(arrays["lengths"])
        outputs = backend(Case(name="the test split", inputs=arrays, chunks=chunks))
        return {name: torch.from_numpy(array) for name, array in outputs.items()}

    return compute


def _realness(candidate: Candidate, backend: Backend, split: Split) -> dict[str, float]:
    """The discriminator's mean probability that a sample is real."""
    model: Any = candidate.run.model
    samples = backend(Case(name="the test split", inputs=split.inputs))["samples"]
    with torch.no_grad():
        return {"realness": model.discriminator(torch.from_numpy(samples)).sigmoid().mean().item()}
