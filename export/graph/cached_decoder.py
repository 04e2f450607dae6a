"""A causal `nn.TransformerEncoder` as one graph for prefill and decode. The caller keeps the key/value cache.

`CachedDecoder` shares the parameters of the trained model. Past keys and values are inputs, and only the new ones are
outputs. Attention scores of past and new keys are computed separately and concatenated before the softmax, so the cache
is never copied. The mask is explicit: a step of row b sees the first `past_lengths[b]` entries of the row's past, and
the new steps up to and including itself.

Shapes: B batch, S new steps, P past steps, D model width, H heads, K head size, V vocabulary.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear


class CachedDecoder(nn.Module):
    """Turns model(ids_BS) -> logits_BSV into decoder(ids_BS, past_lengths_B, *past) -> (logits_BSV, *new).

    `past` holds the key and the value of layer 0, then those of layer 1, and so on, each [B, H, P, K]. `new` has the
    same order, each [B, H, S, K].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.layers: list[nn.TransformerEncoderLayer] = list(model.encoder.layers)
        attention = self.layers[0].self_attn
        self.num_heads: int = attention.num_heads
        self.head_size: int = attention.head_dim

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        ids_BS, past_lengths_B, *past = inputs
        model: Any = self.model
        new_steps = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        x_BSD = model.embedding(ids_BS) + self._positions(past_lengths_B[:, None] + new_steps)
        past_steps = torch.arange(past[0].shape[2], device=ids_BS.device)
        visible = ((past_steps < past_lengths_B[:, None])[:, None, None, :], new_steps <= new_steps[:, None])
        new: list[Tensor] = []
        for index, layer in enumerate(self.layers):

            def attend(x: Tensor, layer: nn.TransformerEncoderLayer = layer, index: int = index) -> Tensor:
                attended, *key_and_value = self._attend(layer.self_attn, x, past[2 * index : 2 * index + 2], visible)
                new.extend(key_and_value)
                return attended

            x_BSD = _layer(layer, x_BSD, attend)
        norm = model.encoder.norm
        x_BSD = x_BSD if norm is None else norm(x_BSD)
        return model.head(x_BSD), *new

    def _positions(self, steps_BS: Tensor) -> Tensor:
        table: Any = self.model.positions
        table_CD: Tensor = table.weight if isinstance(table, nn.Embedding) else table
        # Padding steps may lie beyond the context.
        return embedding(steps_BS.clamp(max=table_CD.shape[0] - 1), table_CD)

    def _attend(
        self, attention: nn.MultiheadAttention, x_BSD: Tensor, past_BHPK: list[Tensor], visible: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        past_key_BHPK, past_value_BHPK = past_BHPK
        visible_past_B11P, visible_new_SS = visible
        projected = linear(x_BSD, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
        )
        query = query / sqrt(self.head_size)
        past_scores = (query @ past_key_BHPK.transpose(2, 3)).masked_fill(~visible_past_B11P, -torch.inf)
        new_scores = (query @ key.transpose(2, 3)).masked_fill(~visible_new_SS, -torch.inf)
        weights = torch.cat([past_scores, new_scores], dim=-1).softmax(dim=-1)
        num_past = past_key_BHPK.shape[2]
        mixed_BHSK = weights[..., :num_past] @ past_value_BHPK + weights[..., num_past:] @ value
        return attention.out_proj(mixed_BHSK.transpose(1, 2).flatten(2)), key, value


def _layer(layer: nn.TransformerEncoderLayer, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """One layer of nn.TransformerEncoder in eval mode, with pre-norm or post-norm."""

    def feed_forward(x: Tensor) -> Tensor:
        output: Tensor = layer.linear2(layer.activation(layer.linear1(x)))
        return output

    if layer.norm_first:
        x = x + attend(layer.norm1(x))
        return x + feed_forward(layer.norm2(x))
    x = layer.norm1(x + attend(x))
    output: Tensor = layer.norm2(x + feed_forward(x))
    return output
