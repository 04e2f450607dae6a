"""Character-level language model: a causal Transformer encoder (Vaswani et al. 2017; pre-norm, as in GPT-2).

The cached decoder of export reads the attributes `embedding`, `positions`, `encoder` and `head`.
"""

from functools import partial

import torch
from torch import Tensor, nn

from training.data import text
from training.recipe import Recipe, Tolerance

CONTEXT = 256


class TextTransformer(nn.Module):
    """The logits at position i depend only on tokens 0..i."""

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
        # Residual branches are scaled down with depth, so their sum has the same variance at any depth (GPT-2).
        for block in self.encoder.layers:
            for part in (block.self_attn.out_proj, block.linear2):
                part.weight.data.div_((2 * layers) ** 0.5)
        with torch.no_grad():
            self.positions.weight.copy_(0.1 * _sinusoids(context, width))
            _previous_token_init(self.encoder.layers[0].self_attn)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [batch, steps] -> logits [batch, steps, vocabulary]; at most `context` steps."""
        steps = torch.arange(ids.shape[1], device=ids.device)
        causal_mask = torch.full(
            (len(steps), len(steps)), float("-inf"), dtype=self.head.weight.dtype, device=ids.device
        ).triu(1)
        with self._autocast(ids.device):
            x_BTN = self.embedding(ids) + self.positions(steps)
            return self.head(self.encoder(x_BTN, mask=causal_mask, is_causal=True)).to(causal_mask.dtype)

    def _autocast(self, device: torch.device) -> torch.autocast:
        """Autocast to bfloat16 in training on CPUs that support it (a third faster); inference stays in float32."""
        use_bfloat16 = self.training and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(
            device.type, torch.bfloat16, enabled=use_bfloat16 or torch.is_autocast_enabled(device.type)
        )


def _initialise(module: nn.Module) -> None:
    """Small normal weights and zero biases; embeddings are smaller than the position vectors added to them."""
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Embedding) else 0.06)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.06)
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _sinusoids(context: int, width: int) -> Tensor:
    """Alternating sines and cosines, [context, width], of frequencies 1 to 1/10,000 (Vaswani et al. 2017, 3.5)."""
    angles = torch.outer(torch.arange(context), _frequencies(width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _frequencies(width: int) -> Tensor:
    return 10_000 ** (-torch.arange(0, width, 2) / width)


def _previous_token_init(attention: nn.MultiheadAttention) -> None:
    """Initialize head h to attend to the character h + 1 positions back.

    A (sine, cosine) pair at position t, rotated back by k times its frequency, is the pair at position t - k. Keys are
    therefore initialized with the identity on the head's pairs, queries with this rotation. Without it, the heads need
    about half a million characters of training to find the preceding ones.
    """
    query_NN, key_NN, _ = attention.in_proj_weight.chunk(3)
    size = attention.head_dim
    for head in range(attention.num_heads):
        for i, angle in enumerate((head + 1) * _frequencies(attention.embed_dim)[: size // 2]):
            pair = slice(2 * i, 2 * i + 2)
            rows = slice(head * size + 2 * i, head * size + 2 * i + 2)
            key_NN[rows, pair] += 2 * torch.eye(2)
            query_NN[rows, pair] += 2 * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


RECIPE = Recipe(
    name="text-transformer",
    family="language-model",
    summary="Generates text character by character, with a causal Transformer of four layers.",
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
