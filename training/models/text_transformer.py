"""A text's next character: a causal Transformer encoder (Vaswani and others 2017; norms first, as in GPT-2).

The attributes `embedding`, `positions`, `encoder` and `head` are what export's cached decoder reads.
"""

from functools import partial

import torch
from torch import Tensor, nn

from training.data import text
from training.recipe import Recipe, Tolerance

CONTEXT = 256


class TextTransformer(nn.Module):
    """Token i's logits are a function of tokens 0..i alone."""

    def __init__(self, *, vocabulary: int, context: int, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(_initialise)
        for block in self.encoder.layers:  # the deeper, the quieter: the sum over layers keeps its size (GPT-2)
            for part in (block.self_attn.out_proj, block.linear2):
                part.weight.data.div_((2 * layers) ** 0.5)
        with torch.no_grad():
            self.positions.weight.copy_(0.1 * _waves(context, width))
            _look_back(self.encoder.layers[0].self_attn)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [batch, steps] -> logits [batch, steps, vocabulary]; at most `context` steps."""
        steps = torch.arange(ids.shape[1], device=ids.device)
        later = torch.full(
            (len(steps), len(steps)), float("-inf"), dtype=self.head.weight.dtype, device=ids.device
        ).triu(1)
        with self._autocast(ids.device):
            x_BTN = self.embedding(ids) + self.positions(steps)
            return self.head(self.encoder(x_BTN, mask=later, is_causal=True)).to(later.dtype)

    def _autocast(self, device: torch.device) -> torch.autocast:
        """bfloat16 while learning, where the CPU multiplies it in hardware: a third faster. Answers are float32."""
        halves = self.training and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(device.type, torch.bfloat16, enabled=halves or torch.is_autocast_enabled(device.type))


def _initialise(module: nn.Module) -> None:
    """Small weights and zero biases; an embedding smaller than the positions that are added to it."""
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Embedding) else 0.06)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.06)
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _waves(context: int, width: int) -> Tensor:
    """Sines and cosines in turn, [context, width], of rates from 1 to 1/10,000 (Vaswani and others 2017, 3.5)."""
    turns = torch.outer(torch.arange(context), _rates(width))
    return torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(1)


def _rates(width: int) -> Tensor:
    return 10_000 ** (-torch.arange(0, width, 2) / width)


def _look_back(attention: nn.MultiheadAttention) -> None:
    """Let head h begin by attending to the character h + 1 places back, where it may learn to look elsewhere.

    A wave at place t, turned back by k times its rate, is the wave at place t - k: keys are a head's waves as they are,
    queries the same ones turned. Without this, half a million characters pass before a head finds its neighbours.
    """
    query_NN, key_NN, _ = attention.in_proj_weight.chunk(3)
    size = attention.head_dim
    for head in range(attention.num_heads):
        for i, turn in enumerate((head + 1) * _rates(attention.embed_dim)[: size // 2]):
            waves = slice(2 * i, 2 * i + 2)
            rows = slice(head * size + 2 * i, head * size + 2 * i + 2)
            key_NN[rows, waves] += 2 * torch.eye(2)
            query_NN[rows, waves] += 2 * torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]])


RECIPE = Recipe(
    name="text-transformer",
    family="language-model",
    summary="Goes on with a text character by character, with a causal Transformer of four layers.",
    load=partial(text.load, context=CONTEXT),
    build=TextTransformer,
    batch_size=4,
    steps=400,
    steps_real=12_000,
    learning_rate=1.5e-3,
    weight_decay=0.1,
    ema=0.99,
    evaluations=6,
    max_items=16,
    max_steps=CONTEXT,
    tolerance=Tolerance(atol=5e-5),
)
