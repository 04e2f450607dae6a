import numpy as np
import pytest
import torch
from torch import nn

from training.layers import Pixels, Ragged, Standardize


def test_pixels_normalizes_per_channel_and_puts_channels_first() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    mean, std = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.4])
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    scaled = Pixels(mean.tolist(), std.tolist())(torch.from_numpy(images))
    np.testing.assert_allclose(scaled.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_pixels_adds_channel_axis_to_grey_images() -> None:
    assert Pixels([0.5], [0.5])(torch.zeros(2, 4, 5, dtype=torch.uint8)).shape == (2, 1, 4, 5)


@pytest.mark.parametrize("layer", [Pixels([0.5], [0.3]), Standardize([1.0, 2.0], [3.0, 4.0])], ids=["pixels", "series"])
def test_preprocessing_returns_dtype_of_the_model(layer: nn.Module) -> None:
    raw = torch.ones(2, 3, 2, dtype=torch.uint8)
    assert layer(raw).dtype == torch.float32
    assert layer.double()(raw).dtype == torch.float64


def test_standardize_scales_each_channel() -> None:
    scaled = Standardize([1.0, 2.0], [3.0, 4.0])(torch.tensor([[[4.0, 2.0], [1.0, 10.0]]]))
    torch.testing.assert_close(scaled, torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_ragged_batch_equals_rows_run_alone(kind: type[nn.RNN] | type[nn.LSTM]) -> None:
    torch.manual_seed(0)
    rnn = kind(3, 5, num_layers=2, batch_first=True)
    x_BTI, lengths = torch.randn(4, 6, 3), torch.tensor([3, 6, 1, 4])
    y_BTN, state = Ragged(rnn)(x_BTI, lengths)
    for row, length in enumerate(lengths):
        single, final = rnn(x_BTI[row : row + 1, :length])
        torch.testing.assert_close(y_BTN[row, :length], single[0])
        assert not y_BTN[row, length:].any()
        finals = final if isinstance(final, tuple) else (final,)
        for actual, expected in zip(state, finals, strict=True):
            torch.testing.assert_close(actual[:, row], expected[:, 0])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_ragged_continues_from_given_state(kind: type[nn.RNN] | type[nn.LSTM]) -> None:
    torch.manual_seed(0)
    ragged = Ragged(kind(3, 5, batch_first=True))
    x_BTI, lengths = torch.randn(2, 6, 3), torch.tensor([6, 6])
    whole, _ = ragged(x_BTI, lengths)
    _, state = ragged(x_BTI[:, :2], torch.tensor([2, 2]))
    rest, _ = ragged(x_BTI[:, 2:], torch.tensor([4, 4]), state)
    torch.testing.assert_close(rest, whole[:, 2:])


@pytest.mark.parametrize(
    "layer",
    [
        nn.GRU(2, 3, batch_first=True),
        nn.RNN(2, 3, batch_first=True, nonlinearity="relu"),
        nn.LSTM(2, 4, batch_first=True, proj_size=2),
        nn.LSTM(2, 3, batch_first=True, bidirectional=True),
        nn.LSTM(2, 3),
    ],
    ids=str,
)
def test_ragged_refuses_layers_without_onnx_operator(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"Ragged expects an nn.LSTM, or an nn.RNN with tanh, .*; got nn\.[A-Z]+\(2, "):
        Ragged(layer)
