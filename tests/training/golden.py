"""The first five losses of every recipe, which change with the data, the model, the learner or the loop.

`python -m tests.training.golden` updates `golden.json`; the commit message must give the reason.
"""

import json
import tempfile
from pathlib import Path

import torch

from training.models import RECIPES
from training.run.loop import Loop, Plan
from training.run.progress import Display
from training.workers import Workers

FILE = Path(__file__).with_name("golden.json")
NUM_LOSSES = 5


def first_losses(name: str) -> tuple[dict[str, str], list[float]]:
    """The hashes of the embedded data and the losses, with seed 0 in float32 on the CPU."""
    recipe = RECIPES[name]
    data = recipe.load(None)
    plan = Plan(
        recipe=name,
        data=None,
        sha256=data.sha256,
        steps=recipe.steps,
        minutes=None,
        seed=0,
        device="cpu",
        threads=torch.get_num_threads(),
        workers=1,
    )
    with tempfile.TemporaryDirectory() as folder, Display(name, start=0, visible=False) as display:
        loop = Loop(
            recipe=recipe, data=data, plan=plan, folder=Path(folder), workers=Workers(device=torch.device("cpu"))
        )
        loop.run(display, lambda: loop.progress.step == NUM_LOSSES)
        return dict(data.sha256), loop.progress.losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden = {}
    for name in RECIPES:
        sha256, losses = first_losses(name)
        golden[name] = {"data": sha256, "losses": [float(f"{loss:.6g}") for loss in losses]}
    FILE.write_text(json.dumps(golden, indent=2) + "\n")
