"""Layers shared by the models: preprocessing, and recurrent networks over ragged batches.

RNNs are called only by `Ragged`, which lets export replace the call by an ONNX operator. Every layer computes in the
dtype of its own buffers or weights, so `model.double()` turns a whole model into a float64 reference.

Shapes: B batch, H height, W width, C channels, T steps, I input size, N hidden size, L layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = tuple[Tensor, ...]  # (h_LBN,) of an RNN, (h_LBN, c_LBN) of an LSTM


class Pixels(nn.Module):
    """Normalize uint8 pixels; `mean` and `std` are those of pixel / 255, one per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W] or [B, H, W, C] -> [B, C, H, W]."""
        images_BCHW = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std


class Standardize(nn.Module):
    """Scale each channel of a series to mean 0 and standard deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, series_BTC: Tensor) -> Tensor:
        return (series_BTC.to(self.mean.dtype) - self.mean) / self.std


class Ragged(nn.Module):
    """A batch-first, unidirectional `nn.LSTM` or tanh `nn.RNN` that stops each row at its own length.

    Raises TypeError for any other layer, because export has no operator for it.
    """

    def __init__(self, rnn: nn.RNN | nn.LSTM) -> None:
        super().__init__()
        is_supported = isinstance(rnn, nn.LSTM) or (isinstance(rnn, nn.RNN) and rnn.nonlinearity == "tanh")
        if not is_supported or not rnn.batch_first or rnn.bidirectional or rnn.proj_size:
            raise TypeError(
                "Ragged expects an nn.LSTM, or an nn.RNN with tanh, with batch_first=True, unidirectional and without "
                f"proj_size; got nn.{rnn}"
            )
        self.rnn = rnn

    def forward(self, x_BTI: Tensor, lengths_B: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return y_BTN, zero after the end of each row, and the state after each row's last step."""
        packed = pack_padded_sequence(x_BTI, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        if isinstance(self.rnn, nn.LSTM):
            y, final = self.rnn(packed, state)
        else:
            y, h_LBN = self.rnn(packed, None if state is None else state[0])
            final = (h_LBN,)
        y_BTN, _ = pad_packed_sequence(y, batch_first=True, total_length=x_BTI.shape[1])
        return y_BTN, tuple(final)
