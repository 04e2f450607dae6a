from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.tiny import RECIPES
from training.learner import Float32Muon, Learner, Supervised, adamw, optimizer_step
from training.recipe import Recipe
from training.workers import Workers

WORKERS = Workers(device=torch.device("cpu"))


def learner_of(recipe: Recipe) -> tuple[nn.Module, Learner]:
    torch.manual_seed(0)
    model = recipe.build(**recipe.load(None).config)
    return model, (recipe.learner or Supervised)(recipe, model, WORKERS)


def batch(recipe: Recipe) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    train = recipe.load(None).train
    return {name: torch.from_numpy(x[:16]) for name, x in train.inputs.items()}, torch.from_numpy(train.targets[:16])


@pytest.mark.parametrize("name", ["tiny-baseline", "tiny-series", "tiny-tagger", "tiny-language", "tiny-muon"])
def test_steps_on_one_batch_reduce_its_loss(name: str) -> None:
    recipe = RECIPES[name]
    _, learner = learner_of(recipe)
    losses = [learner.step(*batch(recipe), Generator())["loss"].item() for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", ["tiny-baseline", "tiny-gan", "tiny-muon"])
def test_restored_learner_takes_the_same_steps(name: str) -> None:
    recipe = RECIPES[name]
    inputs, targets = batch(recipe)
    model, learner = learner_of(recipe)
    learner.step(inputs, targets, Generator().manual_seed(1))
    weights, state = deepcopy(model.state_dict()), {key: x.clone() for key, x in learner.state().items()}
    other, other_learner = learner_of(recipe)
    other.load_state_dict(weights)
    other_learner.restore(state)
    for each in (learner, other_learner):
        torch.manual_seed(5)
        each.step(inputs, targets, Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_muon_computes_in_float32_on_a_cpu_what_torch_computes_in_bfloat16() -> None:
    shapes = ((8, 24), (24, 8), (8, 40))
    weights = [[nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2)]
    generator = Generator().manual_seed(0)
    for pair in zip(*weights, strict=True):
        pair[0].grad = torch.randn(pair[0].shape, generator=generator)
        pair[1].grad = pair[0].grad.clone()
    gradients = [weight.grad.clone() for weight in weights[0] if weight.grad is not None]
    with Dtypes() as seen:
        Float32Muon(weights[0], lr=1.0, weight_decay=0.0).step()
    assert torch.bfloat16 not in seen.dtypes
    with Dtypes() as seen:
        torch.optim.Muon(weights[1], lr=1.0, weight_decay=0.0).step()
    assert torch.bfloat16 in seen.dtypes
    for ours, theirs, gradient in zip(*weights, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0)
        assert ours.grad is not None
        assert torch.equal(ours.grad, gradient), "a gradient is not written"


class Dtypes(TorchDispatchMode):
    """The dtypes of what operators return."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.dtypes.add(result.dtype)
        return result


def test_gan_step_updates_both_networks_with_separate_optimizers() -> None:
    recipe = RECIPES["tiny-gan"]
    model, learner = learner_of(recipe)
    before = deepcopy(model.state_dict())
    losses = learner.step(*batch(recipe), Generator().manual_seed(0))
    assert list(losses) == ["loss", "discriminator"]
    assert not torch.equal(before["generator.layers.0.weight"], model.state_dict()["generator.layers.0.weight"])
    assert not torch.equal(before["discriminator.layers.0.weight"], model.state_dict()["discriminator.layers.0.weight"])
    owned = {
        name: sum(p.numel() for g in o.param_groups for p in g["params"]) for name, o in learner.optimizers.items()
    }
    assert owned["generator"] == sum(p.numel() for p in model.generator.parameters())
    assert owned["discriminator"] == sum(p.numel() for p in model.discriminator.parameters())


def test_weight_decay_applies_to_matrices_only() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    nn.init.ones_(model[0].bias)
    optimizer = adamw(model, replace(RECIPES["tiny-baseline"], weight_decay=0.5, learning_rate=0.1))
    weight = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, weight * 0.95)
    assert torch.equal(model[0].bias, torch.ones(3))
    assert torch.equal(model[1].weight, torch.ones(3))


def test_optimizer_step_clips_gradient() -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimizer_step([torch.optim.SGD([weight], lr=1.0)], (weight * 100).sum(), 2.0)
    torch.testing.assert_close(weight.detach(), torch.full((4,), -1.0), atol=1e-5, rtol=0)


def test_the_gradients_of_several_optimizers_are_clipped_together() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([weight], lr=1.0) for weight in (first, second)]
    optimizer_step(optimizers, (30 * first + 40 * second).sum(), 5.0)
    assert (first.item(), second.item()) == pytest.approx((-3, -4), rel=1e-5)


def test_muon_makes_updates_orthogonal_and_leaves_embeddings_and_vectors_to_adamw() -> None:
    recipe = replace(RECIPES["tiny-muon"], learning_rate=0.1, weight_decay=0.0)
    model, learner = learner_of(recipe)
    before = model.hidden.weight.detach().clone()
    owned = {
        name: {id(p) for g in optimizer.param_groups for p in g["params"]}
        for name, optimizer in learner.optimizers.items()
    }
    assert owned == {
        "muon": {id(model.hidden.weight)},
        "adamw": {id(model.embedding.weight), id(model.hidden.bias), id(model.head.bias)},
    }
    left, right = (torch.linalg.qr(torch.randn(16, 16)).Q for _ in range(2))
    model.hidden.weight.grad = left @ torch.linspace(0.3, 3, 16).diag() @ right
    learner.optimizers["muon"].step()
    # Newton's iteration brings the singular values near 1; the scale is 0.2 of the root of the longer side.
    update = (before - model.hidden.weight.detach()) / (0.1 * 0.2 * 16**0.5)
    torch.testing.assert_close(left.T @ update @ right.T, torch.eye(16), atol=0.4, rtol=0)
