"""How good made images are: alone against real ones, or before a trained classifier.

`python -m training.fidelity GAN_RUN CLASSIFIER_RUN` asks a classifier how sure it is of each sample.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import thin
from training.checkpoint import Run, RunError, load_run
from training.families import FAMILIES
from training.recipe import Split

NUM_REAL = 4000
NEIGHBOURS = 3
SURE = 0.9


def generated(model: nn.Module, test: Split) -> Tensor:
    """The images that the model makes of the test split's latents: uint8 [items, height, width]."""
    latents = torch.from_numpy(test.inputs["latents"])
    return FAMILIES["image-generator"].answer(model, {"latents": latents})["images"]


def fidelity(model: nn.Module, test: Split, *, real: Split) -> dict[str, float]:
    """Precision and coverage on pixels, and the shares of the rarest and the commonest label.

    A made image lies at a real one when it is nearer to it than the real one's third neighbour is. Precision is the
    share of made images that lie at any (Kynkäänniemi et al. 2019), coverage the share of real ones that any lies at
    (Naeem et al. 2020). A made image has the label of its nearest real one.
    """
    real = thin(real, NUM_REAL)
    real_ND, made_MD = _points(torch.from_numpy(real.inputs["images"])), _points(generated(model, test))
    apart_MN = torch.cdist(made_MD, real_ND)
    at_MN = apart_MN <= _reach(real_ND)
    labels = real.targets[apart_MN.argmin(1).numpy()]
    shares = np.bincount(labels, minlength=int(real.targets.max()) + 1) / len(labels)
    return {
        "precision": at_MN.any(1).float().mean().item(),
        "coverage": at_MN.any(0).float().mean().item(),
        "rarest_label": float(shares.min()),
        "commonest_label": float(shares.max()),
    }


def _points(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 255


def _reach(points_ND: Tensor) -> Tensor:
    """Each point's distance to its third neighbour; the first found is the point itself."""
    return torch.cdist(points_ND, points_ND).kthvalue(NEIGHBOURS + 1, dim=1).values


def verdict(maker: Run, judge: Run) -> tuple[float, dict[str, float]]:
    """The share of the maker's images that the judge is sure of, and the share of each label among all."""
    answer = FAMILIES[judge.recipe.family].answer(judge.model, {"images": generated(maker.model, maker.test)})
    best = answer["probabilities"].max(-1)
    counts = best.indices.bincount(minlength=len(judge.checkpoint.labels))
    shares = dict(zip(judge.checkpoint.labels, (counts / counts.sum()).tolist(), strict=True))
    return (best.values >= SURE).float().mean().item(), shares


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.fidelity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("maker", type=Path, metavar="GAN_RUN")
    parser.add_argument("judge", type=Path, metavar="CLASSIFIER_RUN")
    options = parser.parse_args()
    try:
        sure, shares = verdict(load_run(options.maker), load_run(options.judge))
    except RunError as error:
        parser.exit(1, f"{error}\n")
    print(f"sure (>= {SURE}) of {sure:.1%}; " + ", ".join(f"{label}: {share:.1%}" for label, share in shares.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
