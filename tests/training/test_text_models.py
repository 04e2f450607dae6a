"""Text models: masks hide padding and later tokens, and parameter counts match the design."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.models import RECIPES

NEWS = ("news-lstm", "news-attention-dot", "news-attention-general")
VOCABULARY = 30


def news(name: str) -> nn.Module:
    torch.manual_seed(0)
    return RECIPES[name].build(vocabulary=VOCABULARY, labels=4).eval()


@pytest.fixture(scope="module")
def language_model() -> nn.Module:
    torch.manual_seed(0)
    model = RECIPES["text-transformer"].build(vocabulary=VOCABULARY, context=24).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


@pytest.mark.parametrize(("name", "head"), [(NEWS[0], 64), (NEWS[1], 128), (NEWS[2], 128)])
def test_number_of_parameters_matches_design(name: str, head: int) -> None:
    expected = VOCABULARY * 32 + 4 * 64 * (32 + 64 + 2) + head * 4 + 4 + (64 * 64 if name == NEWS[2] else 0)
    assert sum(p.numel() for p in news(name).parameters()) == expected


@pytest.mark.parametrize("name", NEWS)
def test_padding_does_not_change_logits(name: str) -> None:
    model = news(name)
    lengths = torch.tensor([7, 1, 4])
    ids = torch.randint(2, VOCABULARY, (3, 7))
    single = torch.cat([model(row[None, :length], length[None]) for row, length in zip(ids, lengths, strict=True)])
    for padding in (0, 5):
        padded = torch.full((3, 12), padding)
        for row, length in enumerate(lengths):
            padded[row, :length] = ids[row, :length]
        torch.testing.assert_close(model(padded, lengths), single, atol=1e-6, rtol=1e-5)
    other = ids.clone()
    other[0, 6] = (other[0, 6] + 1) % VOCABULARY
    assert not torch.allclose(model(other, lengths)[0], single[0], atol=1e-6)


@pytest.mark.parametrize("name", NEWS[1:])
def test_attention_is_softmax_over_steps_without_padding(name: str) -> None:
    model = news(name)
    y_BTN, h_BN, lengths_B = torch.randn(3, 9, 64), torch.randn(3, 64), torch.tensor([9, 1, 4])
    weights_BT = model.attention(y_BTN, h_BN, lengths_B)
    torch.testing.assert_close(weights_BT.sum(1), torch.ones(3))
    query_BN = h_BN if name == NEWS[1] else h_BN @ model.query.weight.T
    for row, length in enumerate(lengths_B):
        scores_T = torch.stack([y_BTN[row, step] @ query_BN[row] / 8 for step in range(length)])
        torch.testing.assert_close(weights_BT[row, :length], scores_T.exp() / scores_T.exp().sum())
        assert not weights_BT[row, length:].any()


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_sets_the_size_of_the_language_model(depth: int) -> None:
    """Width and heads follow from it, and the head is the embedding."""
    model = RECIPES["text-transformer"].build(vocabulary=VOCABULARY, context=24, depth=depth)
    width = 64 * depth
    layer = 4 * width * (width + 1) + 4 * width * 2 * width + 5 * width + 2 * 2 * width
    assert sum(p.numel() for p in model.parameters()) == (VOCABULARY + 24) * width + depth * layer + 2 * width
    assert model.head.weight is model.embedding.weight
    assert [layer.self_attn.num_heads for layer in model.encoder.layers] == [depth] * depth


def test_training_computes_the_same_attention(language_model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    ids = torch.randint(0, VOCABULARY, (2, 24))
    expected = language_model(ids)
    trained = language_model.train()(ids)
    language_model.eval()
    torch.testing.assert_close(trained, expected, atol=1e-4, rtol=1e-4)


def test_text_of_a_file_is_trained_with_dropout(tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 26, (4_000, 4)) + 97
    (tmp_path / "poem.txt").write_text("".join(f"{''.join(map(chr, word))} " for word in words.tolist()))
    model = RECIPES["text-transformer"].build(**RECIPES["text-transformer"].load(tmp_path / "poem.txt").config)
    ids = torch.randint(0, 99, (1, 9))
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))
    without = RECIPES["text-transformer"].build(vocabulary=99, context=24)
    assert torch.equal(without(ids), without(ids))


def test_logits_do_not_depend_on_later_tokens(language_model: nn.Module) -> None:
    ids = torch.randint(0, VOCABULARY, (2, 24))
    before = language_model(ids)
    for position in (1, 11, 23):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCABULARY
        after = language_model(changed)
        torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(after[:, position:], before[:, position:], atol=1e-2)
    torch.testing.assert_close(language_model(ids[:, :9]), before[:, :9], atol=1e-5, rtol=1e-5)


def test_language_model_equals_reference_transformer(language_model: nn.Module) -> None:
    """Compare with the formulas in float64: pre-norm, causal attention, GELU."""
    model = language_model
    ids = torch.randint(0, VOCABULARY, (2, 10))
    x = (model.embedding.weight[ids] + model.positions.weight[:10]).double()
    for layer in model.encoder.layers:
        x = x + _attention(_norm(x, layer.norm1), layer.self_attn)
        inner = _linear(_norm(x, layer.norm2), layer.linear1)
        x = x + _linear(inner * 0.5 * (1 + torch.erf(inner / 2**0.5)), layer.linear2)
    expected = _norm(x, model.encoder.norm) @ model.head.weight.double().T
    torch.testing.assert_close(model(ids).double(), expected, atol=1e-4, rtol=1e-4)


def _linear(x: Tensor, linear: nn.Linear) -> Tensor:
    return x @ linear.weight.double().T + linear.bias.double()


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight.double() + norm.bias.double()


def _attention(x_BTN: Tensor, attention: nn.MultiheadAttention) -> Tensor:
    q, k, v = (x_BTN @ attention.in_proj_weight.double().T + attention.in_proj_bias.double()).chunk(3, -1)
    heads, size = attention.num_heads, attention.head_dim
    attended = torch.zeros_like(x_BTN)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores_BTT = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        causal_mask = torch.ones(scores_BTT.shape[-2:]).triu(1).bool()
        attended[..., part] = scores_BTT.masked_fill(causal_mask, float("-inf")).softmax(-1) @ v[..., part]
    return _linear(attended, attention.out_proj)


def test_first_layer_heads_start_attending_to_previous_tokens() -> None:
    """Head h attends most to the token h + 1 positions back, for any tokens."""
    torch.manual_seed(0)
    model = RECIPES["text-transformer"].build(vocabulary=VOCABULARY, context=64).eval()
    layer = model.encoder.layers[0]
    x = layer.norm1(model.embedding(torch.randint(0, VOCABULARY, (1, 64))) + model.positions.weight)
    causal_mask = torch.full((64, 64), float("-inf")).triu(1)
    _, weights = layer.self_attn(x, x, x, attn_mask=causal_mask, average_attn_weights=False)
    for head, weights_TT in enumerate(weights[0]):
        shares = [weights_TT.diagonal(-back).mean().item() for back in range(10)]
        assert max(shares) == shares[head + 1] > 0.5
