"""A causal model of `transformers` as one graph for prefill, chunks and decode. The caller keeps the key/value cache.

The layers, projections, norms and positions are those of the model itself. Past keys and values are inputs, and only
the new ones are outputs. The mask is explicit: a step of row b sees the first `past_lengths[b]` entries of the row's
past, and the new steps up to and including itself, as far as the layer's window reaches.

Shapes: B batch, S new steps, P past steps, T = P + S, H heads of keys and values, K head size, V vocabulary.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from export.sources.huggingface.loading import read_json, unsupported
from export.sources.huggingface.precision import in_precision_of

FULL, SLIDING = "full_attention", "sliding_attention"


class PastLayer(DynamicLayer):
    """The past of one layer. Attention reads it with the new keys and values, which are recorded."""

    def __init__(self, past_key_BHPK: Tensor, past_value_BHPK: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(past_key_BHPK, past_value_BHPK)
        self.keys, self.values = past_key_BHPK, past_value_BHPK
        self.new: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.new = (key_states, value_states)
        return torch.cat([self.keys, key_states], dim=2), torch.cat([self.values, value_states], dim=2)


class CausalDecoder(nn.Module):
    """Turns a causal model into decoder(ids_BS, past_lengths_B, *past) -> (logits_BSV, *new).

    `past` holds the key and the value of layer 0, then those of layer 1, and so on, each [B, H, P, K]. `new` has the
    same order, each [B, H, S, K]. Raises ExportError for a model that needs more than keys and values of its past.
    """

    def __init__(self, model: PreTrainedModel, context: int) -> None:
        super().__init__()
        self.model, self.context = model, context
        self.kinds, self.window = attention_kinds(model.config), sliding_window(model.config)
        self.cache_argument = cache_argument(model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        ids_BS, past_lengths_B, *past = inputs
        layers = [PastLayer(key, value) for key, value in zip(past[::2], past[1::2], strict=True)]
        new_steps, past_steps = torch.arange(ids_BS.shape[1]), torch.arange(past[0].shape[2])
        positions_BS = past_lengths_B[:, None] + new_steps
        is_past_BSP = (past_steps < past_lengths_B[:, None])[:, None].expand(-1, ids_BS.shape[1], -1)
        steps_back_BSP = positions_BS[:, :, None] - past_steps
        steps_back_SS = new_steps[:, None] - new_steps
        masks: dict[str, Tensor] = {}
        for kind in self.kinds:
            past_BSP, new_SS = is_past_BSP, steps_back_SS >= 0
            if kind == SLIDING:
                assert self.window is not None, "attention_kinds refuses a window of no size"
                past_BSP, new_SS = past_BSP & (steps_back_BSP < self.window), new_SS & (steps_back_SS < self.window)
            masks[kind] = _additive(torch.cat([past_BSP, new_SS.expand(ids_BS.shape[0], -1, -1)], dim=2))
        with in_precision_of(self.model):
            outputs: Any = self.model(
                input_ids=ids_BS,
                attention_mask=masks if len(masks) > 1 else masks[self.kinds[0]],
                # Padding steps may lie beyond the context.
                position_ids=positions_BS.clamp(max=self.context - 1),
                use_cache=True,
                **{self.cache_argument: Cache(layers=layers)},
            )
        return outputs.logits, *[part for layer in layers for part in layer.new]


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """Layers with a cache, heads of keys and values, and the size of a head."""

    layers: int
    heads: int
    head_size: int


def cache_shape(model: PreTrainedModel) -> CacheShape:
    """The shape of the model's cache, read off one step. Raises ExportError if its layers or parts differ."""
    _, *parts = full_forward(model, torch.zeros(1, 1, dtype=torch.int64))
    shapes = {(part.shape[1], part.shape[3]) for part in parts}
    if len(shapes) != 1:
        sizes = ", ".join(f"{heads} heads of {size}" for heads, size in sorted(shapes))
        raise unsupported(model, f"has keys and values of several shapes ({sizes}), expected one")
    heads, head_size = shapes.pop()
    return CacheShape(layers=len(parts) // 2, heads=heads, head_size=head_size)


def full_forward(model: PreTrainedModel, ids_BT: Tensor) -> tuple[Tensor, ...]:
    """The model's own logits [B, T, V], keys and values [B, H, T, K] of whole rows, without `CausalDecoder`."""
    cache = DynamicCache()  # without the configuration, which would drop what is behind a window
    with torch.no_grad(), in_precision_of(model):
        outputs: Any = model(input_ids=ids_BT, use_cache=True, **{cache_argument(model): cache})
    return outputs.logits, *[part for layer in cache.layers for part in (layer.keys, layer.values)]


def attention_kinds(config: PreTrainedConfig) -> tuple[str, ...]:
    """The kinds of attention in the model's layers. Raises ExportError for one whose past is not keys and values."""
    without_types = FULL if sliding_window(config) is None else SLIDING
    kinds = tuple(dict.fromkeys(getattr(config, "layer_types", None) or (without_types,)))
    if unknown := [kind for kind in kinds if kind not in {FULL, SLIDING}]:
        raise unsupported(config, f"has layers of {unknown[0]}, expected attention over cached keys and values")
    if SLIDING in kinds and sliding_window(config) is None:
        raise unsupported(config, "has layers of sliding_attention, but config.json gives no sliding_window")
    return kinds


def sliding_window(config: PreTrainedConfig) -> int | None:
    """The steps that a layer with a window sees, or None."""
    window: int | None = getattr(config, "sliding_window", None)
    return window


def cache_argument(model: PreTrainedModel) -> str:
    """The name under which the model takes its cache. Raises ExportError if it takes none, or no positions."""
    arguments = inspect.signature(model.forward).parameters
    names = [name for name in ("cache", "past_key_values") if name in arguments]
    if not names:
        raise unsupported(model, "takes no cache of keys and values")
    if "position_ids" not in arguments:
        raise unsupported(model, "takes no position ids, so the rows of a batch cannot have pasts of several lengths")
    return names[0]


def read_ends(folder: Path, model: PreTrainedModel) -> tuple[int | None, tuple[int, ...]]:
    """The id at which a text begins, if any, and those at which generation ends, by the folder's settings."""
    settings = read_json(folder, "generation_config.json")

    def value(name: str) -> Any:
        return settings.get(name, getattr(model.config, name, None))

    eos = value("eos_token_id")
    ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    return value("bos_token_id"), tuple(dict.fromkeys(ids))


def _additive(visible_BST: Tensor) -> Tensor:
    """What is added to the scores, [B, 1, S, T]: 0 at a visible step, the lowest number at the others."""
    zero = torch.zeros(())
    return torch.where(visible_BST[:, None], zero, torch.finfo(zero.dtype).min)
