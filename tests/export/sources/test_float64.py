"""Both twins compute in float64 what the model computes, and leave the model alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from export.sources.float64 import float64_twin


class Scaled(nn.Module):
    """Layers with their own weights, a weight of the root, a buffer, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.3]))
        self.gain = nn.Parameter(torch.tensor([1.7]))
        self.first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.rnn = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.to(self.mean.dtype) - self.mean) * self.gain
        _, (h, _) = self.rnn(self.first(x)[:, None])
        return self.head(h[-1])


@pytest.mark.parametrize("max_copied_bytes", [0, 1 << 20], ids=["on demand", "copied"])
def test_a_twin_computes_in_float64(max_copied_bytes: int) -> None:
    torch.manual_seed(0)
    model = Scaled().eval()
    before = copy.deepcopy(model.state_dict())
    images = torch.randint(0, 256, (4, 6), dtype=torch.uint8)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(images)
        twin = float64_twin(model, max_copied_bytes=max_copied_bytes)
        for _ in range(2):
            assert torch.equal(twin(images), exact)
        assert model(images).dtype == torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_twin_of_a_large_model_shares_its_weights() -> None:
    model = Scaled().eval()
    twin = float64_twin(model, max_copied_bytes=0)
    assert {id(one) for one in twin.parameters()} == {id(one) for one in model.parameters()}
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(2)
        assert torch.equal(twin(torch.zeros(1, 6)), torch.full((1, 3), 2.0, dtype=torch.float64))


def test_weights_are_restored_when_a_layer_raises() -> None:
    model = Scaled().eval()
    twin = float64_twin(model, max_copied_bytes=0)
    with pytest.raises(RuntimeError):
        twin(torch.zeros(1, 7))
    assert {one.dtype for one in twin.parameters()} == {torch.float32}
