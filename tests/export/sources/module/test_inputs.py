"""Canonical tensors become the arguments of a model as its training made them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from export.sources.module.inputs import build_input, step_mask
from export.spec import Spec, parse_spec

HEAD = {"kind": "tensors"}
COLUMNS = [
    {"name": "age", "kind": "number"},
    {"name": "city", "kind": "category", "values": ["a", "b"]},
    {"name": "size", "kind": "category", "values": ["s", "m", "l"]},
]


def spec(reader: dict[str, Any], folder: Path = Path()) -> Spec:
    return parse_spec({"reader": reader, "head": HEAD}, folder / "spec.toml")


def image(**keys: Any) -> Spec:
    return spec({"kind": "image", "height": 2, "width": 3, **keys})


def test_pictures_are_scaled_as_torchvision_does() -> None:
    images = torch.arange(2 * 2 * 3 * 3, dtype=torch.uint8).reshape(2, 2, 3, 3)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    module = build_input(image(mean=mean, std=std), ["x"], [])
    expected = images.permute(0, 3, 1, 2).float().div(255)
    expected = (expected - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(module(images)["x"], expected)
    assert module.double()(images)["x"].dtype == torch.float64


@pytest.mark.parametrize(
    ("layout", "shape"), [("NCHW", (2, 1, 2, 3)), ("NHWC", (2, 2, 3, 1)), ("NHW", (2, 2, 3)), ("flat", (2, 6))]
)
def test_layouts_of_pictures(layout: str, shape: tuple[int, ...]) -> None:
    module = build_input(image(mode="L", layout=layout, scale=1), ["x"], [])
    images = torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3)
    assert torch.equal(module(images)["x"], images.reshape(shape).float())
    assert not list(module.buffers())


@pytest.mark.parametrize("layout", ["NTC", "NCT", "TNC"])
def test_a_series_without_lengths_is_zero_behind_its_end(layout: str) -> None:
    module = build_input(spec({"kind": "series", "channels": 2, "layout": layout}), ["x"], [])
    [x] = module(torch.ones(2, 3, 2), torch.tensor([1, 3])).values()
    ntc = {"NTC": x, "NCT": x.transpose(1, 2), "TNC": x.transpose(0, 1)}[layout]
    assert ntc.sum((1, 2)).tolist() == [2, 6]


def test_lengths_masks_and_states_have_the_names_of_the_model() -> None:
    part = {"kind": "series", "channels": 2, "mask": "valid", "state": {"layers": 1, "hidden": 4}}
    module = build_input(spec(part), ["x", "lengths", "valid", "h", "c"], [])
    state = torch.zeros(2, 1, 4)
    arguments = module(torch.ones(2, 3, 2), torch.tensor([1, 3]), state, state)
    assert list(arguments) == ["x", "lengths", "valid", "h", "c"]
    assert arguments["valid"].tolist() == [[True, False, False], [True, True, True]]
    assert arguments["h"].shape == (1, 2, 4)


def test_texts_have_the_masks_that_the_model_takes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    names = ["input_ids", "attention_mask", "position_ids", "labels"]
    module = build_input(spec({"kind": "text"}, tmp_path), names, [])
    arguments = module(torch.tensor([[5, 6, 7]]), torch.tensor([2]))
    assert {name: value.tolist() for name, value in arguments.items()} == {
        "input_ids": [[5, 6, 0]],
        "attention_mask": [[1, 1, 0]],
        "position_ids": [[0, 1, 2]],
    }


@pytest.mark.parametrize(
    ("keys", "parameters", "expected"),
    [
        ({}, ["numbers", "categories"], {"numbers": [[9]], "categories": [[1, 2]]}),
        ({}, ["a", "b"], {"a": [[9]], "b": [[1, 2]]}),
        ({"encoding": "one-hot"}, ["a", "b"], {"a": [[9]], "b": [[0, 1, 0, 0, 1]]}),
        ({"encoding": "one-hot", "join": True}, ["x"], {"x": [[9, 0, 1, 0, 0, 1]]}),
        ({"join": True}, ["x"], {"x": [[9, 1, 2]]}),
    ],
)
def test_tables(keys: dict[str, Any], parameters: list[str], expected: dict[str, Any]) -> None:
    module = build_input(spec({"kind": "table", "columns": COLUMNS, **keys}), parameters, [])
    arguments = module(torch.tensor([[9.0]]), torch.tensor([[1, 2]]))
    assert {name: value.tolist() for name, value in arguments.items()} == expected


def test_tensors_have_their_own_names_or_their_places() -> None:
    assert list(build_input(spec({"kind": "tensors"}), ["b", "a"], ["a", "b"])(1, 2)) == ["a", "b"]
    assert list(build_input(spec({"kind": "tensors"}), ["x", "y"], ["a", "b"])(1, 2)) == ["x", "y"]
    assert list(build_input(spec({"kind": "tensors"}), None, ["a"])(1)) == ["a"]


@pytest.mark.parametrize(
    ("reader", "sentence"),
    [
        ({"kind": "image", "height": 2, "width": 3, "input": "img"}, r"\[reader\] input is 'img', but forward takes x"),
        ({"kind": "series", "channels": 2, "lengths": "n"}, r"\[reader\] lengths is 'n', but forward takes x"),
        ({"kind": "table", "columns": COLUMNS}, r"forward takes x, but the columns make numbers and categories"),
    ],
)
def test_names_that_the_model_does_not_have(reader: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_input(spec(reader), ["x"], [])


def test_the_mask_is_true_before_the_end() -> None:
    assert step_mask(torch.zeros(2, 3), torch.tensor([1, 3])).tolist() == [[True, False, False], [True, True, True]]
