"""Tiny finished runs and their candidates, each made once for all tests of export."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from export.candidate import Candidate, draft
from export.graph import export_program, release
from export.prove import Proof, prove
from tests.export.tiny import RECIPES, finished, make_run
from training.checkpoint import Run, finish_run
from training.families import FAMILIES
from training.models import RECIPES as REGISTRY
from training.recipe import Split

Runs = Callable[[str], Run]
Candidates = Callable[[str], Candidate]
Proofs = Callable[[str], Proof]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The finished run of a tiny recipe, by name."""
    root: Path = tmp_path_factory.mktemp("runs")
    return cache(lambda name: make_run(root / name, name))


@pytest.fixture(scope="session")
def candidates(runs: Runs) -> Candidates:
    """The exported candidate of a tiny recipe, by name."""
    return cache(lambda name: draft(runs(name), release(export_program(runs(name)))))


@pytest.fixture(params=RECIPES)
def candidate(request: pytest.FixtureRequest, candidates: Candidates) -> Candidate:
    """Every tiny candidate in turn."""
    return candidates(request.param)


@pytest.fixture(scope="session")
def proofs(candidates: Candidates) -> Proofs:
    """The proof of a tiny candidate, by name."""
    return cache(lambda name: prove(candidates(name), lambda gate: None))


def registered_run(folder: Path) -> Path:
    """A finished run of a recipe of the registry, with random weights: for what runs in a process of its own."""
    torch.manual_seed(0)
    recipe = REGISTRY["mnist-mlp"]
    config = {"mean": [0.1], "std": [0.3]}
    model = recipe.build(**config).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    targets = FAMILIES[recipe.family].answer(model, {"images": torch.from_numpy(images)})["logits"].argmax(-1).numpy()
    folder.mkdir(parents=True)
    labels = tuple(map(str, range(10)))
    facts = finished(recipe, config=config, labels=labels, metrics={"test_accuracy": 1.0})
    finish_run(folder, model=model, test=Split(inputs={"images": images}, targets=targets), tokenizer=None, facts=facts)
    return folder
