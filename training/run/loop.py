"""The training loop: seeded, evaluated, resumable.

All randomness of step N is drawn from (seed, N), and the order of the data from (seed, epoch). A resumed run therefore
needs no saved random state and ends with the same weights as an uninterrupted one.
"""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import Indices, batch_tensors, epoch_batches, subsample
from training.checkpoint import RunError, read_snapshot, write_snapshot
from training.evaluation import evaluate, model_predictor
from training.families import FAMILIES
from training.learner import Learner, Supervised
from training.recipe import Data, Recipe
from training.run.progress import Display
from training.workers import Workers

# Enough to select weights by: at 99 % accuracy the standard deviation is 0.2 points.
NUM_VALIDATION_ITEMS = 2000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything beside the recipe that determines a run; a run can only be resumed with the plan it started with."""

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
    """The state of a run beside the tensors of its snapshot."""

    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    best: dict[str, float] = field(default_factory=dict)  # validation scores of the best weights
    best_step: int = 0
    evals_since_best: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last evaluation
    curves: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The fields under their names in a snapshot, where `evals_since_best` is called `stale`."""
        fields = asdict(self)
        fields["stale"] = fields.pop("evals_since_best")
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        others = {name: value for name, value in fields.items() if name != "stale"}
        return cls(**others, evals_since_best=fields["stale"])


class Loop:
    """A run of `recipe` on `data` with `plan`, saved in `folder`."""

    def __init__(self, *, recipe: Recipe, data: Data, plan: Plan, folder: Path, workers: Workers) -> None:
        if min(recipe.batch_size, len(data.train)) % workers.count:
            raise ValueError(
                f"{recipe.name}: a batch of {recipe.batch_size} cannot be divided among {workers.count} workers"
            )
        _check_lengths(recipe, data)
        torch.manual_seed(plan.seed)
        self.recipe, self.data, self.plan, self.folder, self.workers = recipe, data, plan, folder, workers
        self.model = recipe.build(**data.config).to(workers.device)
        self.learner: Learner = (recipe.learner or Supervised)(recipe, self.model, workers)
        self.ema_model = deepcopy(self.model) if recipe.ema else self.model
        self.best_weights = _copy_weights(self.ema_model)
        self.validation = subsample(data.validation, NUM_VALIDATION_ITEMS)
        self.progress = Progress()
        self.epoch = -1
        self.batches: list[Indices] = []

    def resume(self) -> None:
        """Load the snapshot in the folder. Raises RunError when there is none or its plan differs."""
        tensors, saved = read_snapshot(self.folder)
        plan, saved_plan = asdict(self.plan), saved["plan"]
        changed = [f"{key} was {saved_plan[key]}, is {plan[key]}" for key in plan if saved_plan[key] != plan[key]]
        if changed:
            raise RunError(f"{self.folder}: a run can only be resumed with its own plan: {'; '.join(changed)}")
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = tensor
        self.model.load_state_dict(parts["model"])
        self.ema_model.load_state_dict(parts["average"] or parts["model"])
        self.best_weights = parts["best"]
        self.learner.restore(parts["optimizer"])
        self.progress = Progress.from_json(saved["progress"])

    def save(self) -> None:
        if not self.workers.is_main:
            return
        parts = {"model": self.model.state_dict(), "best": self.best_weights, "optimizer": self.learner.state()}
        if self.recipe.ema:
            parts["average"] = self.ema_model.state_dict()
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        write_snapshot(self.folder, tensors, {"plan": asdict(self.plan), "progress": self.progress.to_json()})

    def run(self, display: Display, stop_requested: Callable[[], bool]) -> bool:
        """Train until the plan is complete and save. Returns False when stopped earlier, also saved."""
        progress = self.progress
        started_at = time.monotonic() - progress.seconds
        num_evaluations = int(self.fraction_done() * self.recipe.evaluations)
        while not progress.finished:
            losses = self._step()
            progress.seconds = time.monotonic() - started_at
            display.show_step(progress.step, self.fraction_done(), losses)
            if (num_due := int(self.fraction_done() * self.recipe.evaluations)) > num_evaluations:
                num_evaluations = num_due
                self._evaluate()
                display.show_evaluation(progress.curves[-1], self.fraction_done())
                progress.finished = self.fraction_done() >= 1 or progress.evals_since_best >= self.recipe.patience
                self.save()
            if self.workers.broadcast(stop_requested()) and not progress.finished:
                self.save()
                return False
        return True

    def best_model(self) -> nn.Module:
        """The model with the best weights, on the CPU, in eval mode."""
        self.model.load_state_dict(self.best_weights)
        return self.model.cpu().eval()

    def fraction_done(self) -> float:
        """The completed part of the plan, 0 to 1."""
        if self.plan.steps is not None:
            return self.progress.step / self.plan.steps
        assert self.plan.minutes is not None, "a plan has steps or minutes"
        return min(1.0, self.workers.broadcast(self.progress.seconds / (60 * self.plan.minutes)))

    def _step(self) -> dict[str, Tensor]:
        progress, workers = self.progress, self.workers
        seeds = np.random.SeedSequence((self.plan.seed, progress.step, workers.rank)).generate_state(2, np.uint64)
        # Dropout draws from the global generator; augmentations and latents draw from their own.
        torch.manual_seed(int(seeds[0]))
        generator = torch.Generator().manual_seed(int(seeds[1]))
        inputs, targets = batch_tensors(self.data.train, self._next_batch()[workers.rank :: workers.count])
        if self.recipe.augment is not None:
            inputs = self.recipe.augment(inputs, generator)
        learning_rate = self.recipe.learning_rate * learning_rate_scale(self.fraction_done(), self.recipe.warmup)
        for optimizer in self.learner.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        self.model.train()
        device_inputs = {name: tensor.to(workers.device) for name, tensor in inputs.items()}
        losses = self.learner.step(device_inputs, targets.to(workers.device), generator)
        progress.step += 1
        progress.losses.append(losses["loss"].item())
        if self.recipe.ema:
            update_ema(self.ema_model, self.model, min(self.recipe.ema, progress.step / (progress.step + 10)))
        return losses

    def _next_batch(self) -> Indices:
        """The batch of the current step; all epochs are equally long, so the step determines epoch and position."""
        per_epoch = max(1, len(self.data.train) // min(self.recipe.batch_size, len(self.data.train)))
        epoch, position = divmod(self.progress.step, per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches = epoch_batches(self.data.train, self.recipe.batch_size, seed=self.plan.seed, epoch=epoch)
        return self.batches[position]

    def _evaluate(self) -> None:
        """Add a point to the curves, and copy the weights if they are the best so far."""
        progress, family = self.progress, self.recipe.family
        self.ema_model.eval()
        scores: dict[str, float] = {}
        if self.workers.is_main:
            predict = model_predictor(family, self.ema_model, self.workers.device)
            scores = evaluate(family, predict, self.validation)
        point = {f"validation_{name}": score for name, score in scores.items()}
        loss = sum(progress.losses) / len(progress.losses)
        if not math.isfinite(loss):
            raise RunError(
                f"{self.recipe.name}: the loss is {loss} at step {progress.step}; a lower learning_rate may help"
            )
        progress.curves.append({"step": progress.step, "loss": loss, **point})
        progress.losses = []
        if self.workers.broadcast(_is_better(scores, progress.best, FAMILIES[family].metric)):
            self.best_weights = _copy_weights(self.ema_model)
            progress.best, progress.best_step, progress.evals_since_best = scores, progress.step, 0
        else:
            progress.evals_since_best += 1


def learning_rate_scale(fraction: float, warmup: float) -> float:
    """The learning rate relative to its peak: a linear warmup, then a cosine decay to 1 %."""
    if fraction < warmup:
        return max(fraction / warmup, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup))) / 2


def update_ema(ema_model: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights and statistics towards those of the model; integer buffers are not updated."""
    # Tied weights have several names and are averaged once.
    pairs = {
        a.data_ptr(): (a, v) for a, v in zip(ema_model.state_dict().values(), model.state_dict().values(), strict=True)
    }
    averages, values = zip(*((a, v) for a, v in pairs.values() if a.is_floating_point()), strict=True)
    torch._foreach_lerp_(averages, values, 1 - decay)


def _check_lengths(recipe: Recipe, data: Data) -> None:
    """Raises ValueError when an item is longer than `max_steps` of the recipe: export would refuse the model."""
    for name in ("train", "validation", "test"):
        inputs = getattr(data, name).inputs
        longest = inputs["lengths"].max() if "lengths" in inputs else inputs["ids"].shape[1] if "ids" in inputs else 0
        if recipe.max_steps is not None and longest > recipe.max_steps:
            raise ValueError(
                f"an item of the {name} split has {longest} steps, max_steps is {recipe.max_steps}: "
                "raise max_steps of the recipe, or cut the items"
            )


def _is_better(scores: dict[str, float], best: dict[str, float], metric: str | None) -> bool:
    """Compare by the metric, then by the loss. Without a metric, the latest weights are the best."""
    if metric is None or not best:
        return True

    def rank(scored: Mapping[str, Any]) -> tuple[float, float]:
        return (scored["accuracy"] if metric == "accuracy" else 0.0), -scored["loss"]

    return rank(scores) > rank(best)


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
