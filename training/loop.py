"""The one training loop: seeded, measured, resumable.

Everything random in step N is drawn from (seed, N), and the order of the data from (seed, epoch). So a run that resumes
after step N needs no random state but these two numbers, and ends with the weights of a run that never stopped.
"""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import Indices, epoch_batches, take, thin
from training.checkpoint import RunError, read_snapshot, write_snapshot
from training.evaluation import measure, on_device
from training.families import FAMILIES
from training.learner import Learner, Supervised
from training.progress import Display
from training.recipe import Data, Recipe
from training.workers import Workers

NUM_VALIDATION_ITEMS = 2000  # enough to choose weights by: 0.2 points of deviation at 99 %


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides a run beside its recipe. A run is resumed under the plan it began with."""

    recipe: str
    data: str | None  # path or URL; None is the embedded data
    sha256: Mapping[str, str]  # of the data
    steps: int | None  # either steps or minutes
    minutes: float | None
    seed: int
    device: str  # "cpu" or "cuda"
    threads: int
    workers: int


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; with the snapshot's tensors, all there is to know of it."""

    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    best: dict[str, float] = field(default_factory=dict)  # the validation scores of the weights that are kept
    best_step: int = 0
    stale: int = 0  # evaluations since
    losses: list[float] = field(default_factory=list)  # of the steps since the last evaluation
    curves: list[dict[str, float]] = field(default_factory=list)


class Loop:
    """A run of `recipe` on `data` under `plan`, kept in `folder`."""

    def __init__(self, *, recipe: Recipe, data: Data, plan: Plan, folder: Path, workers: Workers) -> None:
        if min(recipe.batch_size, len(data.train)) % workers.count:
            raise ValueError(
                f"{recipe.name}: a batch of {recipe.batch_size} cannot be shared by {workers.count} workers"
            )
        _check_lengths(recipe, data)
        torch.manual_seed(plan.seed)
        self.recipe, self.data, self.plan, self.folder, self.workers = recipe, data, plan, folder, workers
        self.model = recipe.build(**data.config).to(workers.device)
        self.learner: Learner = (recipe.learner or Supervised)(recipe, self.model, workers)
        self.average = deepcopy(self.model) if recipe.ema else self.model
        self.best = _copy(self.average)
        self.validation = thin(data.validation, NUM_VALIDATION_ITEMS)
        self.progress = Progress()
        self.epoch = -1
        self.batches: list[Indices] = []

    def resume(self) -> None:
        """Take up the snapshot in the folder. Raises RunError where its plan is another."""
        tensors, saved = read_snapshot(self.folder)
        planned = asdict(self.plan)
        other = [
            f"{key} was {saved['plan'][key]}, is {planned[key]}"
            for key in planned
            if saved["plan"][key] != planned[key]
        ]
        if other:
            raise RunError(
                f"{self.folder}: a run resumes as it began, or its weights would be neither's: {'; '.join(other)}"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = tensor
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"] or parts["model"])
        self.best = parts["best"]
        self.learner.restore(parts["optimizer"])
        self.progress = Progress(**saved["progress"])

    def save(self) -> None:
        if not self.workers.first:
            return
        parts = {"model": self.model.state_dict(), "best": self.best, "optimizer": self.learner.state()}
        if self.recipe.ema:
            parts["average"] = self.average.state_dict()
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        write_snapshot(self.folder, tensors, {"plan": asdict(self.plan), "progress": asdict(self.progress)})

    def run(self, display: Display, stop_asked: Callable[[], bool]) -> bool:
        """Train to the end of the plan and save. False where it was asked to stop before, and saved itself too."""
        state = self.progress
        began = time.monotonic() - state.seconds
        evaluations = int(self.fraction() * self.recipe.evaluations)
        while not state.finished:
            shown = self._step()
            state.seconds = time.monotonic() - began
            display.step(state.step, self.fraction(), shown)
            if (now := int(self.fraction() * self.recipe.evaluations)) > evaluations:
                evaluations = now
                self._evaluate()
                display.evaluated(state.curves[-1], self.fraction())
                state.finished = self.fraction() >= 1 or state.stale >= self.recipe.patience
                self.save()
            if self.workers.agree(stop_asked()) and not state.finished:
                self.save()
                return False
        return True

    def trained(self) -> nn.Module:
        """The model with the best weights, on the CPU, in eval mode."""
        self.model.load_state_dict(self.best)
        return self.model.cpu().eval()

    def fraction(self) -> float:
        """How much of the plan is done: 0 to 1."""
        if self.plan.steps is not None:
            return self.progress.step / self.plan.steps
        assert self.plan.minutes is not None, "a plan has steps or minutes"
        return min(1.0, self.workers.agree(self.progress.seconds / (60 * self.plan.minutes)))

    def _step(self) -> dict[str, Tensor]:
        state, workers = self.progress, self.workers
        words = np.random.SeedSequence((self.plan.seed, state.step, workers.rank)).generate_state(2, np.uint64)
        torch.manual_seed(int(words[0]))  # dropout
        generator = torch.Generator().manual_seed(int(words[1]))  # augmentation, latents
        inputs, targets = take(self.data.train, self._batch()[workers.rank :: workers.count])
        if self.recipe.augment is not None:
            inputs = self.recipe.augment(inputs, generator)
        for optimizer in self.learner.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * schedule(self.fraction(), self.recipe.warmup)
        self.model.train()
        there = {name: tensor.to(workers.device) for name, tensor in inputs.items()}
        shown = self.learner.step(there, targets.to(workers.device), generator)
        state.step += 1
        state.losses.append(shown["loss"].item())
        if self.recipe.ema:
            follow(self.average, self.model, min(self.recipe.ema, state.step / (state.step + 10)))
        return shown

    def _batch(self) -> Indices:
        """The next batch, found by counting: every epoch has as many."""
        per_epoch = max(1, len(self.data.train) // min(self.recipe.batch_size, len(self.data.train)))
        epoch, place = divmod(self.progress.step, per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches = epoch_batches(self.data.train, self.recipe.batch_size, seed=self.plan.seed, epoch=epoch)
        return self.batches[place]

    def _evaluate(self) -> None:
        """Add a point to the curves, and keep the weights if they are the best so far."""
        state, family = self.progress, self.recipe.family
        self.average.eval()
        scores: dict[str, float] = {}
        if self.workers.first:
            scores = measure(family, on_device(family, self.average, self.workers.device), self.validation)
        point = {f"validation_{name}": score for name, score in scores.items()}
        loss = sum(state.losses) / len(state.losses)
        if not math.isfinite(loss):
            raise RunError(
                f"{self.recipe.name}: the loss is {loss} at step {state.step}; a lower learning_rate may help"
            )
        state.curves.append({"step": state.step, "loss": loss, **point})
        state.losses = []
        better = bool(self.workers.agree(_better(scores, state.best, FAMILIES[family].metric)))
        state.stale = 0 if better else state.stale + 1
        if better:
            self.best, state.best, state.best_step = _copy(self.average), scores, state.step


def schedule(fraction: float, warmup: float) -> float:
    """The share of the learning rate: up in a line, then down a cosine to 1 %."""
    if fraction < warmup:
        return max(fraction / warmup, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup))) / 2


def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights (and statistics) towards the model's; counters are taken as they are."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    mine, theirs = zip(*((a, m) for a, m in pairs if a.is_floating_point()), strict=True)
    torch._foreach_lerp_(mine, theirs, 1 - decay)


def _check_lengths(recipe: Recipe, data: Data) -> None:
    """Raises ValueError where an item has more steps than the recipe says are served: export would refuse the model."""
    for name in ("train", "validation", "test"):
        inputs = getattr(data, name).inputs
        longest = inputs["lengths"].max() if "lengths" in inputs else inputs["ids"].shape[1] if "ids" in inputs else 0
        if recipe.max_steps is not None and longest > recipe.max_steps:
            raise ValueError(
                f"an item of the {name} split has {longest} steps, max_steps is {recipe.max_steps}: "
                "raise max_steps of the recipe, or cut the items"
            )


def _better(scores: dict[str, float], best: dict[str, float], metric: str | None) -> bool:
    """By the metric; where that is equal, by the loss. Without a metric the latest is the best."""
    if metric is None or not best:
        return True

    def rank(scored: Mapping[str, Any]) -> tuple[float, float]:
        return (scored["accuracy"] if metric == "accuracy" else 0.0), -scored["loss"]

    return rank(scores) > rank(best)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
