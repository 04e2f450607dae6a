"""Weights are loaded strictly, tied ones once, and every refusal names the key or the way out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export.sources.module.weights_file import load_weights, read_weights


def test_weights_are_loaded(tmp_path: Path) -> None:
    saved, module = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module.weight, saved.weight)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight


def test_tied_weights_may_be_stored_once(tmp_path: Path) -> None:
    weight = torch.randn(5, 4)
    save_file({"embedding.weight": weight}, tmp_path / "w.safetensors")
    module = Tied()
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module.out.weight, weight)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"weight": torch.zeros(2, 3)}, r"lacks 'bias' for Linear \(1 missing, 0 unexpected\)"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "extra": torch.zeros(1)},
            "has the unexpected key 'extra'",
        ),
        (
            {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)},
            r"weight has the shape \[2, 4\], the module's has \[2, 3\]",
        ),
        ({}, r"lacks 'weight' for Linear \(2 missing, 0 unexpected\)"),
        ({"module.weight": torch.zeros(2, 3), "module.bias": torch.zeros(2)}, "all keys start with 'module.'"),
        ({"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}, "weight holds NaN"),
    ],
)
def test_wrong_weights(tmp_path: Path, weights: dict[str, torch.Tensor], sentence: str) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=sentence):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")


def test_pickles_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is a pickle.*save_file\(model.state_dict\(\), 'w.safetensors'\).*torch.load\('w.pth'"
    ):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"is no \.safetensors file"):
        read_weights(tmp_path / "w.safetensors")
