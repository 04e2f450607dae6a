"""Learners: the update of a model's weights from one batch, which a recipe may replace.

A learner owns the optimizers and nothing else; the loop owns time, order, randomness and files.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.overrides import TorchFunctionMode

from training.families import FAMILIES
from training.recipe import Recipe
from training.workers import Workers


class Learner:
    """The interface to the loop, which sets the learning rate of each optimizer and then calls `step`."""

    optimizers: dict[str, torch.optim.Optimizer]

    def __init__(self, recipe: Recipe, model: Any, workers: Workers) -> None:
        raise NotImplementedError

    def step(self, inputs: dict[str, Tensor], targets: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Update the weights from one batch and return the losses to display, `loss` first.

        `generator` is a CPU generator.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """The state of all optimizers, as tensors named OPTIMIZER/PARAMETER/FIELD."""
        return {
            f"{name}/{index}/{field}": value
            for name, optimizer in self.optimizers.items()
            for index, fields in optimizer.state_dict()["state"].items()
            for field, value in fields.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load `state`, as returned by `state()`; it holds no learning rates, the loop sets them."""
        for name, optimizer in self.optimizers.items():
            fields: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                optimizer_name, index, field = key.split("/")
                if optimizer_name == name:
                    fields.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": fields, "param_groups": optimizer.state_dict()["param_groups"]})


class Supervised(Learner):
    """Minimize the family's loss with AdamW."""

    def __init__(self, recipe: Recipe, model: nn.Module, workers: Workers) -> None:
        self.recipe = recipe
        self.workers = workers
        self.model = workers.wrap(model)
        self.optimizers = {"adamw": adamw(model, recipe)}

    def step(self, inputs: dict[str, Tensor], targets: Tensor, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        family_loss = FAMILIES[self.recipe.family].loss
        assert family_loss is not None, f"{self.recipe.name}: its family has no loss, so the recipe must name a learner"
        with self.workers.autocast():
            loss = family_loss(self.model, inputs, targets, self.recipe.label_smoothing)
        optimizer_step(self.optimizers.values(), loss, self.recipe.gradient_clip)
        return {"loss": loss.detach()}


class Muon(Supervised):
    """Minimize the family's loss with Muon (Jordan et al. 2024), which makes the update of each matrix orthogonal.

    Embeddings, and vectors such as biases, are updated by AdamW; the rates are scaled to the same size of updates (Liu
    et al. 2025, "Muon is Scalable for LLM Training").
    """

    def __init__(self, recipe: Recipe, model: nn.Module, workers: Workers) -> None:
        super().__init__(recipe, model, workers)
        embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
        matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in embeddings]
        kind = Float32Muon if matrices[0].device.type == "cpu" else torch.optim.Muon
        muon = kind(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
        self.optimizers = {"muon": muon, "adamw": adamw(model, recipe, without=matrices)}


class Float32Muon(torch.optim.Muon):
    """Muon in float32: its bfloat16 matrix products take 20 times as long on CPUs without bfloat16 instructions."""

    def step(self, closure: Any = None) -> Any:
        with _InFloat32():
            return super().step(closure)


class _InFloat32(TorchFunctionMode):
    """Replace a conversion to bfloat16 by a copy."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.bfloat16:
            return args[0].clone()
        return func(*args, **(kwargs or {}))


def adamw(
    model: nn.Module, recipe: Recipe, betas: tuple[float, float] = (0.9, 0.98), without: Sequence[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and normalization weights do not decay.

    The parameters in `without` belong to another optimizer.
    """
    excluded = set(map(id, without))
    matrices = [p for p in model.parameters() if p.dim() > 1 and id(p) not in excluded]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, betas=betas, fused=True)


def optimizer_step(optimizers: Iterable[torch.optim.Optimizer], loss: Tensor, gradient_clip: float) -> None:
    """Backpropagate `loss`, clip the norm of the whole gradient and update the weights of the optimizers."""
    optimizers = list(optimizers)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clip_grad_norm_([p for one in optimizers for group in one.param_groups for p in group["params"]], gradient_clip)
    for optimizer in optimizers:
        optimizer.step()
