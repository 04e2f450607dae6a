"""Runs of the tiny recipes, trained once and shared by all tests, on one thread so that results are reproducible."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.training.tiny import RECIPES
from training.__main__ import main


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """train("tiny-images", "--steps", "9") returns the run folder; equal arguments share one folder."""
    runs: dict[tuple[str, ...], Path] = {}

    def trained(*argv: str) -> Path:
        if argv not in runs:
            folder = tmp_path_factory.mktemp(argv[0])
            assert main([*argv, "--threads", "1", "--out", str(folder)], RECIPES) == 0
            runs[argv] = folder
        return runs[argv]

    return trained
