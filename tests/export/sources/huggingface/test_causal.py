"""A cached decoder computes what the causal model computes on whole rows, and continues texts as `generate` does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from export.errors import ExportError
from export.sources.huggingface.causal import CacheShape, CausalDecoder, cache_shape, full_forward, read_ends
from tests.export.sources.huggingface.conftest import Exports
from tests.export.sources.huggingface.folders import CHARACTERS, CONTEXT, gpt2, llama, randomize, write_json

SIZES: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MODELS = {
    "gpt2": gpt2,
    "llama": llama,
    "mistral with a window": lambda: randomize(
        transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=5))
    ),
    "qwen2 with two kinds of layers": lambda: randomize(
        transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1)
        )
    ),
    "qwen3": lambda: randomize(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=6))),
}
# The past of each row, the new steps, and the slots of the cache.
FEEDS = [([0, 0, 0], 30, 0), ([0, 3, 11], 1, 16), ([7, 0, 20], 9, 25)]


@pytest.mark.parametrize("name", MODELS)
def test_the_decoder_equals_the_model_on_whole_rows(name: str) -> None:
    model = MODELS[name]()
    model.set_attn_implementation("eager")
    decoder, shape = CausalDecoder(model, CONTEXT), cache_shape(model)
    ids = torch.randint(0, 30, (3, 30), generator=torch.Generator().manual_seed(0))
    expected = [tensor.numpy() for tensor in full_forward(model, ids)]
    for past, steps, slots in FEEDS:
        feed = _feed(past, steps, slots, ids.numpy(), expected)
        with torch.no_grad():
            outputs = decoder(*[torch.from_numpy(array) for array in feed])
        assert len(outputs) == 1 + 2 * shape.layers
        for output, whole in zip(outputs, expected, strict=True):
            for row, first in enumerate(past):
                part = (row, ..., slice(first, first + steps), slice(None))
                np.testing.assert_allclose(output[row].numpy(), whole[part], atol=1e-5)


def test_attention_with_a_window_differs_from_full_attention() -> None:
    model = MODELS["mistral with a window"]()
    ids = torch.arange(20)[None]
    windowed, *_ = full_forward(model, ids)
    model.config.sliding_window = None
    full, *_ = full_forward(model, ids)
    assert not torch.allclose(windowed[:, -1], full[:, -1], atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_graph_continues_rows_of_several_lengths_as_generate_does(name: str, exports: Exports) -> None:
    folder, source, graph = exports(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompts = [[5, 9, 4], [7], [12, 3, 8, 20, 2, 2, 11]]
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    rows = [torch.tensor([prompt]) for prompt in prompts]
    generated = [model.generate(row, attention_mask=torch.ones_like(row), **settings) for row in rows]
    expected = [row[0, len(prompt) :].tolist() for row, prompt in zip(generated, prompts, strict=True)]
    assert _greedy(graph, source, prompts, 20) == expected


def test_the_graph_ignores_the_slots_behind_a_row_past(exports: Exports) -> None:
    _, source, graph = exports("llama")
    shape = (2, source.head.heads, 12, source.head.head_size)
    outputs = []
    for scale in (0, 1e4):
        rng = np.random.default_rng(0)
        feed = {"ids": np.array([[4], [5]]), "past_lengths": np.array([3, 7])}
        for spec in source.inputs[2:]:
            cache = rng.standard_normal(shape).astype(np.float32)
            beyond = np.arange(12) >= feed["past_lengths"][:, None]
            feed[spec.name] = np.where(beyond[:, None, :, None], np.float32(scale) * cache, cache)
        outputs.append(graph.run(feed))
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])


def test_the_cache_has_the_heads_of_keys_and_values() -> None:
    assert cache_shape(llama()) == CacheShape(layers=2, heads=2, head_size=4)


def test_a_model_without_positions_is_refused_by_name() -> None:
    model = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=30, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(ExportError, match=r"BloomForCausalLM takes no position ids.*python -m export module"):
        CausalDecoder(model, CONTEXT)


def test_layers_without_keys_and_values_are_refused_by_name() -> None:
    model = llama()
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ExportError, match=r"has layers of linear_attention.*python -m export module"):
        CausalDecoder(model, CONTEXT)


def test_the_ends_are_those_of_generation_config(tmp_path: Path) -> None:
    model = gpt2()
    assert read_ends(tmp_path, model) == (0, (1,))
    write_json(tmp_path / "generation_config.json", {"bos_token_id": None, "eos_token_id": [5, 1, 5]})
    assert read_ends(tmp_path, model) == (None, (5, 1))


def _feed(past: list[int], steps: int, slots: int, ids: Any, whole: list[Any]) -> list[Any]:
    """New tokens, the past of each row, and caches with noise in all other slots."""
    rng = np.random.default_rng(slots)
    tokens = np.stack([row[first : first + steps] for row, first in zip(ids, past, strict=True)])
    caches = []
    for part in whole[1:]:
        cache = (30 * rng.standard_normal((*part.shape[:2], slots, part.shape[3]))).astype(np.float32)
        for row, first in enumerate(past):
            cache[row, :, :first] = part[row, :, :first]
        caches.append(cache)
    return [tokens, np.array(past), *caches]


def _greedy(graph: Any, source: Any, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
    """The tokens of rows that are prefilled alone and decoded together."""
    head, slots = source.head, 40
    names = [spec.name for spec in source.inputs[2:]]
    caches = {name: np.zeros((len(prompts), head.heads, slots, head.head_size), np.float32) for name in names}
    rows: list[list[int]] = []
    for row, prompt in enumerate(prompts):
        empty = {name: cache[:1, :, :0] for name, cache in caches.items()}
        outputs = graph.run({"ids": np.array([prompt]), "past_lengths": np.zeros(1, np.int64), **empty})
        for name in names:
            caches[name][row, :, : len(prompt)] = outputs[name.replace("past", "new")][0]
        rows.append([int(outputs["logits"][0, -1].argmax())])
    lengths = np.array([len(prompt) for prompt in prompts])
    for _ in range(num_tokens - 1):
        outputs = graph.run({"ids": np.array([[row[-1]] for row in rows]), "past_lengths": lengths, **caches})
        for row, length in enumerate(lengths):
            for name in names:
                caches[name][row, :, length] = outputs[name.replace("past", "new")][row, :, 0]
            rows[row].append(int(outputs["logits"][row, 0].argmax()))
        lengths = lengths + 1
    assert max(map(max, rows)) < len(CHARACTERS)
    return rows
