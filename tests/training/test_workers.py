import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.tiny import RECIPES
from training.checkpoint import load_run
from training.workers import Workers, gather_workers

ROOT = Path(__file__).parents[2]


def test_two_processes_take_the_steps_of_one(train: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    argv = ["tiny-series-calm", "--steps", "20", "--threads", "1"]
    subprocess.run(
        [*command, "-m", "tests.training.tiny", *argv, "--out", os.fspath(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    shared, alone = load_run(tmp_path, RECIPES), load_run(train(*argv[:3]), RECIPES)
    start = RECIPES["tiny-series-calm"].build(**shared.checkpoint.config).state_dict()
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(shared.model.state_dict()[name], weight, atol=2e-4, rtol=1e-3)
        assert "head" not in name or not torch.allclose(start[name], weight, atol=1e-2)
    assert shared.checkpoint.steps == 20


def test_one_process_is_its_own_first_worker() -> None:
    with gather_workers("cpu") as workers:
        assert workers.first
        assert workers.agree(0.25) == 0.25
        network = torch.nn.Linear(1, 1)
        assert workers.wrap(network) is network


def test_autocast_is_for_gpus() -> None:
    with Workers(device=torch.device("cpu")).autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="finds no GPU here; use --device cpu or auto"), gather_workers("cuda"):
        pass
