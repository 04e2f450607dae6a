"""Tiny finished runs, tiny sources and their candidates, made once per session for all tests of export."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from export.candidate import Candidate, build_candidate
from export.gates.proof import Proof, prove
from export.gates.vocabulary.linear_time import check_linear_time
from export.graph.exporter import export_program, strip_metadata
from export.sources.run import run_source
from tests.export import tiny_sources
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
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session", autouse=True)
def each_tokenizer_is_timed_once() -> Iterator[None]:
    """Every text model is checked for its tokenizer's time, most of them for that of a few tiny ones."""
    timed: set[str] = set()

    def check_once(tokenizer: Tokenizer, content: str) -> None:
        if content not in timed:
            check_linear_time(tokenizer, content)
            timed.add(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.gates.vocabulary.gate.check_linear_time", check_once)
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The finished run of a tiny recipe, by name."""
    root: Path = tmp_path_factory.mktemp("runs")
    return cache(lambda name: make_run(root / name, name))


def make_candidate(run: Run) -> Candidate:
    """The exported candidate of a run."""
    source = run_source(run)
    return build_candidate(source, strip_metadata(export_program(source)))


@pytest.fixture(scope="session")
def candidates(runs: Runs) -> Candidates:
    """The exported candidate of a tiny recipe, by name."""
    return cache(lambda name: make_candidate(runs(name)))


@pytest.fixture(params=RECIPES)
def candidate(request: pytest.FixtureRequest, candidates: Candidates) -> Candidate:
    """Every tiny candidate in turn."""
    return candidates(request.param)


@pytest.fixture(scope="session")
def stages() -> dict[str, list[str]]:
    """The stages that `proofs` has reported, by name."""
    return defaultdict(list)


@pytest.fixture(scope="session")
def proofs(candidates: Candidates, stages: dict[str, list[str]]) -> Proofs:
    """The proof of a tiny candidate, by name."""
    return cache(lambda name: prove(candidates(name), stages[name].append))


@pytest.fixture(scope="session")
def sources() -> Candidates:
    """The candidate of a tiny source, by name."""
    return cache(tiny_sources.make_candidate)


@pytest.fixture(scope="session")
def source_proofs(sources: Candidates) -> Proofs:
    """The proof of a tiny source, by name."""
    return cache(lambda name: prove(sources(name), lambda stage: None))


def registered_run(folder: Path) -> Path:
    """A finished run of a registered recipe, with random weights. A child process can load it."""
    torch.manual_seed(0)
    recipe = REGISTRY["mnist-mlp"]
    config = {"mean": [0.1], "std": [0.3]}
    model = recipe.build(**config).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    targets = FAMILIES[recipe.family].predict(model, {"images": torch.from_numpy(images)})["logits"].argmax(-1).numpy()
    folder.mkdir(parents=True)
    labels = tuple(map(str, range(10)))
    facts = finished(recipe, config=config, labels=labels, metrics={"test_accuracy": 1.0})
    finish_run(folder, model=model, test=Split(inputs={"images": images}, targets=targets), tokenizer=None, facts=facts)
    return folder
