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
                nn.init.normal_(part.weight, std=0.02 / (2 * layers) ** 0.5)

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
    """Small weights, zero biases (GPT-2)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)


RECIPE = Recipe(
    name="text-transformer",
    family="language-model",
    summary="Goes on with a text character by character, with a causal Transformer of four layers.",
    load=partial(text.load, context=CONTEXT),
    build=TextTransformer,
    batch_size=8,
    steps=200,
    steps_real=6000,
    learning_rate=2e-3,
    weight_decay=0.1,
    ema=0.99,
    evaluations=10,
    max_items=16,
    max_steps=CONTEXT,
    tolerance=Tolerance(atol=5e-5),
)
