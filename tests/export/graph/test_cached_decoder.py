"""The cached decoder computes what nn.TransformerEncoder computes."""

from typing import Any

import pytest
import torch

from export.graph.cached_decoder import CachedDecoder
from tests.export.tiny import CausalModel, randomize


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_prefill_and_decode_equal_the_full_forward_pass(norm_first: bool, activation: str) -> None:
    torch.manual_seed(0)
    model = randomize(CausalModel(norm_first, activation, 2)).double().eval()
    decoder = CachedDecoder(model)
    ids = torch.randint(0, 29, (3, 9))
    empty_cache = [torch.zeros(3, 2, 0, 8, dtype=torch.float64)] * 4
    with torch.no_grad():
        full = model(ids)
        prefill, *cache = decoder(ids[:, :5], torch.zeros(3, dtype=torch.int64), *empty_cache)
        decoded, *_ = decoder(ids[:, 5:], torch.full((3,), 5), *cache)
    torch.testing.assert_close(torch.cat([prefill, decoded], 1), full, rtol=1e-9, atol=1e-9)


def test_output_ignores_slots_beyond_the_past_and_positions_beyond_the_context() -> None:
    torch.manual_seed(0)
    model: Any = randomize(CausalModel(True, "gelu", 2)).double().eval()
    decoder = CachedDecoder(model)
    ids, lengths = torch.randint(0, 29, (2, 3)), torch.tensor([2, 22])
    past = [torch.randn(2, 2, 24, 8, dtype=torch.float64) for _ in range(4)]
    changed = [tensor.clone() for tensor in past]
    for tensor in changed:
        tensor[0, :, 2:] = 99.0
        tensor[1, :, 22:] = -99.0
    with torch.no_grad():
        clean, other = (decoder(ids, lengths, *tensors)[0] for tensors in (past, changed))
    assert torch.equal(clean, other)
    assert clean.isfinite().all()
