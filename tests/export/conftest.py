"""Tiny finished runs and their candidates, each made once for all tests of export."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from export.candidate import Candidate, draft
from export.graph import export_program, release
from tests.export.tiny import RECIPES, make_run
from training.checkpoint import Run

Runs = Callable[[str], Run]
Candidates = Callable[[str], Candidate]


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
