"""A folded BatchNorm computes what the layer and the BatchNorm compute one after the other."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.gates.weights.folding import FOLDABLE, TRANSPOSED, fold

LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(6, 4),
    "conv1d": nn.Conv1d(6, 4, 3, bias=False),
    "conv2d": nn.Conv2d(6, 4, 3, groups=2),
    "conv3d": nn.Conv3d(6, 4, 2),
    "conv_transpose1d": nn.ConvTranspose1d(6, 4, 3),
    "conv_transpose2d": nn.ConvTranspose2d(6, 4, 3, groups=2),
    "conv_transpose3d": nn.ConvTranspose3d(6, 4, 2, bias=False),
}


def filled(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.double().eval()


@pytest.mark.parametrize("operator", FOLDABLE)
@pytest.mark.parametrize("affine", [True, False])
def test_the_folded_layer_is_the_layer_and_the_norm(operator: str, affine: bool) -> None:
    dimensions = int(operator[-2]) if operator != "linear" else 0
    norm = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions](4, affine=affine)
    layer, norm = filled(LAYERS[operator]), filled(norm)
    statistics = {name: getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var", "eps")}
    arrays = {
        name: value.detach().numpy() if isinstance(value, Tensor) else value for name, value in statistics.items()
    }
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    parameters = {"weight": layer.weight.detach().numpy(), "bias": bias, "groups": getattr(layer, "groups", 1)}
    weight, bias = fold(operator, parameters, arrays)

    x = torch.randn(3, 6, *[5] * dimensions, dtype=torch.float64)
    expected = norm(layer(x))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T if operator == "linear" else weight))
        layer.bias = nn.Parameter(torch.from_numpy(bias))
        torch.testing.assert_close(layer(x), expected)


def test_transposed_convolutions_are_known() -> None:
    assert set(TRANSPOSED) < set(FOLDABLE)
