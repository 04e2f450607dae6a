import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.tiny import RECIPES
from training.batches import batch_tensors
from training.checkpoint import load_run
from training.models.mnist_gan import Adversarial
from training.workers import Workers, join_workers

ROOT = Path(__file__).parents[2]


def test_two_workers_take_the_steps_of_one(train: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    argv = ["tiny-series-no-noise", "--steps", "20", "--threads", "1"]
    subprocess.run(
        [*command, "-m", "tests.training.tiny", *argv, "--out", os.fspath(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    shared, single = load_run(tmp_path, RECIPES), load_run(train(*argv[:3]), RECIPES)
    start = RECIPES["tiny-series-no-noise"].build(**shared.checkpoint.config).state_dict()
    for name, weight in single.model.state_dict().items():
        torch.testing.assert_close(shared.model.state_dict()[name], weight, atol=2e-4, rtol=1e-3)
        assert "head" not in name or not torch.allclose(start[name], weight, atol=1e-2)
    assert shared.checkpoint.steps == 20


def train_gan(rank: int, port: int, folder: str) -> None:
    """Run some GAN steps as worker `rank` of two, on its half of the data, and save its weights to `folder`."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank))
    recipe = RECIPES["tiny-gan"]
    train = recipe.load(None).train
    # The workers start with different weights and take over those of worker 0.
    torch.manual_seed(rank)
    model = recipe.build().train()
    with join_workers("cpu") as workers:
        learner = Adversarial(recipe, model, workers)
        save_file(model.state_dict(), f"{folder}/start{rank}")
        for step in range(4):
            inputs, targets = batch_tensors(train, np.arange(16 * step + 8 * rank, 16 * step + 8 * rank + 8))
            learner.step(inputs, targets, torch.Generator().manual_seed(10 * step + rank))
    save_file(model.state_dict(), f"{folder}/end{rank}")


def test_two_workers_with_different_images_train_one_gan(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    torch.multiprocessing.spawn(train_gan, (port, os.fspath(tmp_path)), nprocs=2)
    one, other, start = (load_file(tmp_path / name) for name in ("end0", "end1", "start1"))
    weights = [name for name in one if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert {name.split(".")[0] for name in weights} == {"generator", "discriminator"}
    for name in weights:
        torch.testing.assert_close(one[name], other[name], atol=0, rtol=0)
        # This bias cancels in the loss, so it has no gradient.
        if name != "discriminator.layers.4.bias":
            assert not torch.equal(one[name], start[name]), name


def test_single_process_is_main_worker() -> None:
    with join_workers("cpu") as workers:
        assert workers.is_main
        assert workers.broadcast(0.25) == 0.25
        network = torch.nn.Linear(1, 1)
        assert workers.wrap(network) is network


def test_autocast_is_off_on_cpu() -> None:
    with Workers(device=torch.device("cpu")).autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_missing_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="finds no GPU here; use --device cpu or auto"), join_workers("cuda"):
        pass
