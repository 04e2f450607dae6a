"""A model in float64 computes in float64 where its code asks for float32, as its norms and its softmax do."""

import copy

import torch

from export.sources.float64 import float64_twin
from export.sources.huggingface.causal import full_forward
from export.sources.huggingface.precision import in_precision_of
from tests.export.sources.huggingface.folders import llama

IDS = torch.arange(20)[None]


def test_a_model_in_float64_loses_no_digit_to_float32() -> None:
    model = llama().double()
    logits, *_ = full_forward(model, IDS)
    shifted = copy.deepcopy(model)
    # Of the hidden states, float32 would drop a change of 1e-12.
    shifted.model.embed_tokens.weight.data.mul_(1 + 1e-12)
    moved, *_ = full_forward(shifted, IDS)
    difference = (moved - logits).abs().max().item()
    assert 0 < difference < 1e-9
    with torch.no_grad():
        rounded = model(input_ids=IDS).logits
    assert (rounded - logits).abs().max() > 1e-8


def test_a_twin_that_converts_its_weights_on_demand_loses_none_either() -> None:
    model = llama()
    exact, *_ = full_forward(copy.deepcopy(model).double(), IDS)
    logits, *_ = full_forward(float64_twin(model, max_copied_bytes=0), IDS)
    assert torch.equal(logits, exact)


def test_a_model_in_float32_is_left_alone() -> None:
    model = llama()
    logits, *_ = full_forward(model, IDS)
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, logits)
    with in_precision_of(model):
        assert torch.ones(1, dtype=torch.float64).float().dtype == torch.float32
