"""What a model returns becomes the canonical outputs of its head."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from export.sources.module.outputs import build_output, choose, flatten
from export.spec import parse_spec

READER = {"kind": "tensors"}
X = torch.tensor([[1.0, -2.0, 0.5]])


def head(**keys: Any) -> Any:
    return build_output(parse_spec({"reader": READER, "head": keys}, Path("spec.toml")))


def test_one_label_is_a_softmax() -> None:
    outputs = head(kind="labels", labels=3)(X, {})
    assert torch.equal(outputs["logits"], X)
    assert torch.equal(outputs["probabilities"], X.softmax(-1))
    assert list(head(kind="labels", labels=3, activation="none")(X, {})) == ["probabilities"]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_score_is_the_second_of_two_labels(shape: tuple[int, ...]) -> None:
    scores = torch.tensor([3.0, -1.0])
    outputs = head(kind="labels", labels=["no", "yes"], activation="sigmoid")(scores.reshape(shape), {})
    assert torch.equal(outputs["probabilities"][:, 1], scores.sigmoid())
    torch.testing.assert_close(outputs["logits"].softmax(-1), outputs["probabilities"])


def test_several_labels_are_sigmoids() -> None:
    outputs = head(kind="multilabel", labels=3)(X, {})
    assert torch.equal(outputs["probabilities"], X.sigmoid())


def test_values_get_their_units_back() -> None:
    module = head(kind="values", names=["a", "b", "c"], mean=[1, 2, 3], std=10)
    torch.testing.assert_close(module(X, {})["values"], torch.tensor([[11.0, -18.0, 8.0]]))
    assert head(kind="values", names=["a"])(torch.zeros(2), {})["values"].shape == (2, 1)


def test_embeddings_are_pooled_and_normalised() -> None:
    steps = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    inputs = {"lengths": torch.tensor([2])}
    assert head(kind="embedding", pooling="mean")(steps, inputs)["embedding"].tolist() == [[1.5, 2.0]]
    assert head(kind="embedding", pooling="first", normalized=True)(steps, inputs)["embedding"].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("keys", "shape", "expected"),
    [
        ({"mode": "L"}, (1, 1, 2, 3), (1, 2, 3)),
        ({"mode": "L", "layout": "NHW"}, (1, 2, 3), (1, 2, 3)),
        ({"mode": "RGB"}, (1, 3, 2, 3), (1, 2, 3, 3)),
        ({"mode": "RGB", "layout": "NHWC"}, (1, 2, 3, 3), (1, 2, 3, 3)),
    ],
)
def test_pictures_are_pixels(keys: dict[str, Any], shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    images = head(kind="image", **keys)(torch.full(shape, 0.5), {})["images"]
    assert (images.shape, images.dtype) == (expected, torch.uint8)
    assert images.unique().tolist() == [128]


def test_a_language_model_has_another_way_in() -> None:
    with pytest.raises(ValueError, match="python -m export hf"):
        head(kind="language-model", layers=1, heads=1, head_size=4)


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@dataclass
class Record:
    a: Tensor
    b: Tensor | None


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (X, ["0"]),
        ((X, (X, X)), ["0", "1.0", "1.1"]),
        ({"a": X, "b": [X]}, ["a", "b.0"]),
        (Pair(X, X), ["a", "b"]),
        (Record(X, None), ["a"]),
    ],
)
def test_every_tensor_has_a_name(returned: Any, names: list[str]) -> None:
    assert [name for name, _ in flatten(returned)] == names


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="the model returns int, expected tensors"):
        list(flatten({"a": 3}))


def test_an_output_is_chosen_by_name_or_place() -> None:
    outputs = {"a": X, "b": X + 1}
    assert choose(outputs, None) is X
    assert choose(outputs, "b") is choose(outputs, 1)
    with pytest.raises(ValueError, match=r"\[head\] output is 'c', but the model returns a, b"):
        choose(outputs, "c")
