"""Language model: a causal Transformer encoder (Vaswani et al. 2017; pre-norm and a tied head, as in GPT-2).

The cached decoder of export reads the attributes `embedding`, `positions`, `encoder` and `head`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training.data import text
from training.learner import Muon
from training.recipe import Data, Recipe, Tolerance

CONTEXT = 256
HEAD_SIZE = 64
# For texts that are trained on for long; the embedded one is learned in minutes.
DROPOUT = 0.1


class Layer(nn.TransformerEncoderLayer):
    """A layer whose attention trains twice as fast on a CPU, as two matrix products instead of one fused operator."""

    def _sa_block(
        self, x: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super()._sa_block(x, attn_mask, key_padding_mask, is_causal)
        attended, _ = self.self_attn(x, x, x, attn_mask=attn_mask, need_weights=True)
        return self.dropout1(attended)


class TextTransformer(nn.Module):
    """The logits at position i depend only on tokens 0..i. `depth` is the number of layers, and of heads in each."""

    def __init__(self, *, vocabulary: int, context: int, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        width = HEAD_SIZE * depth
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        layer = Layer(width, depth, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        self.apply(_initialise)
        # Residual branches are scaled down with depth, so their sum has the same variance at any depth (GPT-2).
        for block in self.encoder.layers:
            # Dropout of what each branch adds; that of attention weights would take a third of the time.
            block.dropout1.p = block.dropout2.p = dropout
            for part in (block.self_attn.out_proj, block.linear2):
                part.weight.data.div_((2 * depth) ** 0.5)
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
            x_BTN = self.dropout(self.embedding(ids) + self.positions(steps))
            return self.head(self.encoder(x_BTN, mask=causal_mask, is_causal=True)).to(causal_mask.dtype)

    def _autocast(self, device: torch.device) -> torch.autocast:
        """Autocast to bfloat16 in training on CPUs that support it (a third faster); inference stays in float32."""
        use_bfloat16 = self.training and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(
            device.type, torch.bfloat16, enabled=use_bfloat16 or torch.is_autocast_enabled(device.type)
        )


def _initialise(module: nn.Module) -> None:
    """Normal weights and zero biases; embeddings are smaller than the position vectors added to them."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=_std(module.embed_dim))
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.normal_(module.weight, std=_std(module.in_features))
        nn.init.zeros_(module.bias)


def _std(num_inputs: int) -> float:
    return 0.7 / num_inputs**0.5


def _sinusoids(context: int, width: int) -> Tensor:
    """Alternating sines and cosines, [context, width], of frequencies 1 to 1/10,000 (Vaswani et al. 2017, 3.5)."""
    angles = torch.outer(torch.arange(context), _frequencies(width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _frequencies(width: int) -> Tensor:
    return 10_000 ** (-torch.arange(0, width, 2) / width)


def _previous_token_init(attention: nn.MultiheadAttention) -> None:
    """Initialize head h to attend to the token h + 1 positions back.

    A (sine, cosine) pair at position t, rotated back by k times its frequency, is the pair at position t - k. Keys are
    therefore initialized with the identity on the head's pairs, queries with this rotation. Without it, the heads need
    about half a million tokens of training to find the preceding ones.
    """
    query_NN, key_NN, _ = attention.in_proj_weight.chunk(3)
    size = attention.head_dim
    for head in range(attention.num_heads):
        for i, angle in enumerate((head + 1) * _frequencies(attention.embed_dim)[: size // 2]):
            pair = slice(2 * i, 2 * i + 2)
            rows = slice(head * size + 2 * i, head * size + 2 * i + 2)
            key_NN[rows, pair] += 2 * torch.eye(2)
            query_NN[rows, pair] += 2 * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


def load(path: Path | None) -> Data:
    """The embedded text, or that of a file with dropout."""
    data = text.load(path, context=CONTEXT)
    return data if path is None else replace(data, config={**data.config, "dropout": DROPOUT})


RECIPE = Recipe(
    name="text-transformer",
    family="language-model",
    summary="Generates text token by token, with a causal Transformer of three layers and a vocabulary of 1,024.",
    load=load,
    build=TextTransformer,
    batch_size=8,
    steps=400,
    steps_real=4_000,
    learning_rate=3e-3,
    weight_decay=0.1,
    ema=0.99,
    learner=Muon,
    evaluations=6,
    max_items=16,
    max_steps=CONTEXT,
    tolerance=Tolerance(atol=5e-5),
)
