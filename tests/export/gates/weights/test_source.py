"""The constants of a module are listed in the order in which its operators use them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.gates.weights.gate import check_weights
from export.gates.weights.source import Folding, read_source
from export.sources.run import run_source
from tests.export.conftest import Runs, make_candidate
from tests.export.tiny import CHANNELS, CLASSES, RECIPES, WORDS, make_run, recipe
from training.layers import Pixels


def test_parameters_and_numbers_come_in_order_of_use(runs: Runs) -> None:
    source = read_source(run_source(runs("tiny-lstm")))
    assert [str(one) for one in source.all_constants if one.names][:4] == [
        "'standardize.mean' (3,)",
        "'standardize.std' (3,)",
        "'ragged.rnn.weight_ih_l0' (32, 3)",
        "'ragged.rnn.weight_hh_l0' (32, 8)",
    ]
    assert list(map(str, source.constants))[-2:] == ["'head.weight' (8, 4)", "'head.bias' (4,)"]
    assert not source.unused


def test_the_constants_of_the_code_stand_where_it_uses_them(runs: Runs) -> None:
    constants = list(map(str, read_source(run_source(runs("tiny-gan"))).constants[-4:]))
    assert constants == ["the constant 1", "the constant 127.5", "the constant 0", "the constant 255"]


def test_a_layer_with_its_norm_has_two_forms(runs: Runs) -> None:
    source = read_source(run_source(runs("tiny-picture")))
    [folding] = [entry for entry in source.constants if isinstance(entry, Folding)]
    assert [one.names for one in folding.separate if one.names] == [
        (f"layers.{name}",) for name in ("1.weight", "1.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var")
    ]
    assert [one.value.shape for one in folding.folded] == [(6, 1, 3, 3), (6,)]
    for one in folding.folded:
        assert one.exact is not None
        np.testing.assert_allclose(one.value, one.exact, rtol=1e-5, atol=1e-6)


def test_the_discriminator_and_counters_are_not_missed(runs: Runs) -> None:
    source = read_source(run_source(runs("tiny-gan")))
    assert not source.unused
    assert not any("discriminator" in name for one in source.all_constants for name in one.names)


class Idle(nn.Module):
    """Has a parameter and a buffer that no operator uses, and two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.second.weight = self.first.weight
        self.idle = nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.ones(3))
        self.register_buffer("counter", torch.tensor(3))

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        return self.second(self.first(series))[:, 0] + 0 * lengths[:, None]


def test_unused_parameters_and_buffers_are_named(runs: Runs) -> None:
    source = read_source(run_source(replace(runs("tiny-rnn"), model=Idle())))
    assert source.unused == ("idle", "mask")


class ImageModel(nn.Module):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def image_model(*layers: nn.Module) -> nn.Module:
    return ImageModel(nn.Sequential(Pixels([0.3], [0.2]), *layers))


def head(size: int) -> tuple[nn.Module, ...]:
    return nn.Flatten(), nn.Linear(size, CLASSES)


class Encoder(nn.Module):
    """A Transformer encoder as a text classifier, with a sliced table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 16)
        self.register_buffer("positions", torch.randn(64, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        positions: Any = self.positions
        x = self.embedding(ids) * 4.0 + positions[: ids.shape[1]]
        is_padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        x = self.encoder(x, src_key_padding_mask=is_padding)
        return self.head(x.masked_fill(is_padding[:, :, None], 0).sum(1) / lengths[:, None])


class Computed(nn.Module):
    """Uses weights that are computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 8)
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.temperature = nn.Parameter(torch.zeros(()))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(ids) @ self.weight.T
        return self.head(x.mean(1) * self.temperature.exp()) + 2e-3 * lengths[:, None]


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, 8, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.gru(series)
        return self.head(y[torch.arange(len(series)), lengths - 1])


# Models of layers that no recipe of the registry has: family, builder, one transformation that the gate must name.
OTHERS: dict[str, tuple[Any, Any, str]] = {
    "group-norm": (
        "image-classifier",
        lambda: image_model(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), *head(8)),
        "reshaped",
    ),
    "norm-apart": (
        "image-classifier",
        lambda: image_model(nn.Conv2d(1, 8, 3), nn.LeakyReLU(0.1), nn.BatchNorm2d(8), nn.AvgPool2d(2), *head(72)),
        "as it is",
    ),
    "norm-without-weights": (
        "image-classifier",
        lambda: image_model(
            nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
            nn.LayerNorm(256, elementwise_affine=False), nn.Linear(256, 8), nn.SELU(), nn.RMSNorm(8), *head(8),
        ),
        "folded",
    ),
    "transposed-convolution": (
        "image-classifier",
        lambda: image_model(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 4, 4, 2, 1, groups=2), nn.BatchNorm2d(4),
            nn.PReLU(), nn.Hardsigmoid(), *head(256),
        ),
        "folded",
    ),
    "encoder": ("text-classifier", Encoder, "transposed"),
    "computed": ("text-classifier", Computed, "folded"),
    "gru": ("series-classifier", Gru, "gates reordered and joined"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_layers_of_other_models_are_accounted_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, build, transformation = OTHERS[name]
    more = {} if family == "image-classifier" else {"max_steps": 12}
    monkeypatch.setitem(RECIPES, f"tiny-{name}", recipe(f"tiny-{name}", family, build, **more))
    run = make_run(tmp_path / f"tiny-{name}", f"tiny-{name}")
    weights = check_weights(make_candidate(run))
    assert transformation in weights.transformations
