"""A GRU that applies the reset gate before the matrix product, which PyTorch does not have (Cho et al. 2014).

Shapes: B batch, T steps, I input size, N hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out

from export.graph.recurrent import OPSET


class ResetBeforeGru(nn.Module):
    """Keras' GRU with reset_after=False; weights are [gates * N, ...], with the gates z, r and h.

    While a program is exported it emits ONNX' operator, whose gates have this order; else it computes step by step.
    """

    def __init__(self, kernel: Tensor, recurrent: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(kernel.T.contiguous(), requires_grad=False)
        self.weight_hh = nn.Parameter(recurrent.T.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
        self.hidden = recurrent.shape[0]

    def forward(
        self, x_BTI: Tensor, lengths_B: Tensor | None, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_BTN, arbitrary after the end of each row, and the state after each row's last step."""
        h_BN = x_BTI.new_zeros(x_BTI.shape[0], self.hidden) if state is None else state[0]
        if torch.compiler.is_exporting():
            return self._emit(x_BTI, lengths_B, h_BN)
        lengths = torch.full((len(x_BTI),), x_BTI.shape[1]) if lengths_B is None else lengths_B
        outputs = []
        for step in range(x_BTI.shape[1]):
            h_BN = torch.where((step < lengths)[:, None], self._step(x_BTI[:, step], h_BN), h_BN)
            outputs.append(h_BN)
        return torch.stack(outputs, 1), (h_BN,)

    def _step(self, x_BI: Tensor, h_BN: Tensor) -> Tensor:
        x_z, x_r, x_h = nn.functional.linear(x_BI, self.weight_ih, self.bias).chunk(3, -1)
        w_z, w_r, w_h = self.weight_hh.chunk(3)
        z_BN, r_BN = (x_z + h_BN @ w_z.T).sigmoid(), (x_r + h_BN @ w_r.T).sigmoid()
        return z_BN * h_BN + (1 - z_BN) * (x_h + (r_BN * h_BN) @ w_h.T).tanh()

    def _emit(self, x_BTI: Tensor, lengths_B: Tensor | None, h_BN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        batch, num_steps, _ = x_BTI.shape
        bias = None if self.bias is None else torch.cat((self.bias, torch.zeros_like(self.bias)))[None]
        lengths = None if lengths_B is None else lengths_B.to(torch.int32)
        attributes: dict[str, Any] = {"hidden_size": self.hidden, "linear_before_reset": 0}
        y_T1BN, h_1BN = symbolic_multi_out(
            "GRU",
            [x_BTI.transpose(0, 1), self.weight_ih[None], self.weight_hh[None], bias, lengths, h_BN[None]],
            attrs=attributes,
            dtypes=[x_BTI.dtype] * 2,
            shapes=[(num_steps, 1, batch, self.hidden), (1, batch, self.hidden)],
            version=OPSET,
        )
        return y_T1BN.squeeze(1).transpose(0, 1), (h_1BN[0],)
