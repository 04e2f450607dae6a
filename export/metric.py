"""Gate 3, metric: on the held-back test split the graph scores as the PyTorch model does, and as training recorded.

Training wrote its metrics down before there was any graph; a mistake that export's reference and graph shared would
show here. An image generator has no labels: there the judge is its own discriminator, which never saw a graph.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.answers import Answer, by_session, by_torch
from export.candidate import Candidate, ExportError
from export.cases import Case, whole
from training.batches import thin
from training.evaluation import measure
from training.families import start
from training.recipe import Split

POINT = 0.001  # 0.1 points of accuracy; for a loss, 0.001 nats
MAX_ITEMS = 10_000
MAX_WINDOWS = 32


def check_metric(candidate: Candidate) -> dict[str, tuple[float, float]]:
    """Score -> (of PyTorch, of the graph). Raises ExportError where they differ by more than a tenth of a point."""
    run = candidate.run
    split = thin(run.test, MAX_WINDOWS if run.recipe.family == "language-model" else MAX_ITEMS)
    score = _realness if run.recipe.family == "image-generator" else _scores
    of_torch, of_graph = (score(candidate, answer, split) for answer in (by_torch(run), by_session(candidate.session)))
    recorded = {name.removeprefix("test_"): value for name, value in run.checkpoint.metrics.items()}
    for name, value in of_graph.items():
        _check(name, "PyTorch", of_torch[name], value)
        if name in recorded and len(split) == len(run.test):
            _check(name, "training", recorded[name], value)
    return {name: (of_torch[name], of_graph[name]) for name in of_graph}


def _check(name: str, whose: str, expected: float, value: float) -> None:
    if not abs(value - expected) <= POINT:
        raise ExportError(
            "metric",
            f"{name} of the graph on the test split is {value:.5f}, {whose} had {expected:.5f}: "
            f"they differ by {abs(value - expected):.2g}, at most {POINT} is allowed",
        )


def _scores(candidate: Candidate, answer: Answer, split: Split) -> dict[str, float]:
    return measure(candidate.run.recipe.family, _as_tensors(candidate, answer), split)


def _as_tensors(candidate: Candidate, answer: Answer) -> Callable[[dict[str, Tensor]], Mapping[str, Tensor]]:
    family, model = candidate.run.recipe.family, candidate.run.model

    def tensors(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = dict(start(model, inputs)) if family == "series-tagger" else inputs
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}
        chunks = None
        if family == "language-model":
            arrays["lengths"] = np.full(len(arrays["ids"]), arrays["ids"].shape[1])
            chunks = whole(arrays["lengths"])
        outputs = answer(Case(name="the test split", inputs=arrays, chunks=chunks))
        return {name: torch.from_numpy(array) for name, array in outputs.items()}

    return tensors


def _realness(candidate: Candidate, answer: Answer, split: Split) -> dict[str, float]:
    """How real, from 0 to 1, the discriminator finds the samples on average."""
    model: Any = candidate.run.model
    samples = answer(Case(name="the test split", inputs=split.inputs))["samples"]
    with torch.no_grad():
        return {"realness": model.discriminator(torch.from_numpy(samples)).sigmoid().mean().item()}
