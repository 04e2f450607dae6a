"""Quality of generated images, measured against real images or by a trained classifier.

`python -m training.fidelity GAN_RUN CLASSIFIER_RUN` prints how many samples the classifier labels with confidence.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import subsample
from training.checkpoint import Run, RunError, load_run
from training.families import FAMILIES
from training.recipe import Split

NUM_REAL = 4000
NUM_COMPONENTS = 30
NUM_NEIGHBOURS = 5

# A classifier labels an image with confidence when the label's probability is at least this.
CONFIDENT = 0.9


def generate_images(model: nn.Module, test: Split) -> Tensor:
    """The images that the model generates from the latents of the test split: uint8 [items, height, width]."""
    latents = torch.from_numpy(test.inputs["latents"])
    return FAMILIES["image-generator"].predict(model, {"latents": latents})["images"]


def measure_fidelity(model: nn.Module, test: Split, *, real: Split) -> dict[str, float]:
    """Precision, recall, density and coverage, and the shares of the rarest and the most common label.

    An image is a point: its projection on the largest principal components of the real images. A generated image
    matches a real one when their distance is at most the distance of the real image to its fifth nearest real
    neighbour.

    - precision: the share of generated images that match any real image;
    - recall: the share of real images within the distance of any generated image to its fifth nearest generated one
      (both: Kynkäänniemi et al. 2019);
    - density: the number of real images that a generated image matches, divided by 5, in the mean;
    - coverage: the share of real images that any generated image matches (both: Naeem et al. 2020, where 5 neighbours
      are the recommendation).

    Real images that are compared with others have a density of about 1 and a recall near 1. A few images, repeated,
    have a precision of 1, but a coverage and a recall near 0. The label of a generated image is that of its nearest
    real image.
    """
    real = subsample(real, NUM_REAL)
    real_ND, fake_MD = _project(torch.from_numpy(real.inputs["images"]), generate_images(model, test))
    distance_MN = torch.cdist(fake_MD, real_ND)
    matches_MN = distance_MN <= _neighbour_distance(real_ND)
    inside_MN = distance_MN <= _neighbour_distance(fake_MD).unsqueeze(1)
    labels = real.targets[distance_MN.argmin(1).numpy()]
    shares = np.bincount(labels, minlength=int(real.targets.max()) + 1) / len(labels)
    return {
        "precision": matches_MN.any(1).float().mean().item(),
        "recall": inside_MN.any(0).float().mean().item(),
        "density": matches_MN.sum(1).float().mean().item() / NUM_NEIGHBOURS,
        "coverage": matches_MN.any(0).float().mean().item(),
        "rarest_label": float(shares.min()),
        "commonest_label": float(shares.max()),
    }


def _project(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The images as points [N, D] and [M, D]: projections on the first components of the real ones."""
    real_NP, fake_MP = real.flatten(1).float() / 255, fake.flatten(1).float() / 255
    mean_P = real_NP.mean(0)
    _, vectors_PP = torch.linalg.eigh((real_NP - mean_P).T @ (real_NP - mean_P))
    components_PD = vectors_PP[:, -NUM_COMPONENTS:]
    return (real_NP - mean_P) @ components_PD, (fake_MP - mean_P) @ components_PD


def _neighbour_distance(points_ND: Tensor) -> Tensor:
    """The distance [N] of each point to its nearest neighbour number NUM_NEIGHBOURS."""
    # The nearest point of each point is the point itself.
    return torch.cdist(points_ND, points_ND).kthvalue(NUM_NEIGHBOURS + 1, dim=1).values


def classify_samples(generator: Run, classifier: Run) -> tuple[float, dict[str, float]]:
    """The share of generated images that the classifier labels with confidence, and the share of each label."""
    images = generate_images(generator.model, generator.test)
    outputs = FAMILIES[classifier.recipe.family].predict(classifier.model, {"images": images})
    best = outputs["probabilities"].max(-1)
    counts = best.indices.bincount(minlength=len(classifier.checkpoint.labels))
    shares = dict(zip(classifier.checkpoint.labels, (counts / counts.sum()).tolist(), strict=True))
    return (best.values >= CONFIDENT).float().mean().item(), shares


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.fidelity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generator", type=Path, metavar="GAN_RUN")
    parser.add_argument("classifier", type=Path, metavar="CLASSIFIER_RUN")
    options = parser.parse_args()
    try:
        confident, shares = classify_samples(load_run(options.generator), load_run(options.classifier))
    except RunError as error:
        parser.exit(1, f"{error}\n")
    labels = ", ".join(f"{label}: {share:.1%}" for label, share in shares.items())
    print(f"confident (>= {CONFIDENT}): {confident:.1%}; {labels}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
