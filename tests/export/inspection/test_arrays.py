"""The first spec of examples works as it is; that of weights says which lines to fill in."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.inspection.arrays import inspect_arrays
from export.inspection.first_spec import FILL_IN
from export.spec import parse_spec

RNG = np.random.default_rng(0)
N = 12


def drafted(folder: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """The spec of these arrays, which is valid."""
    content = tomllib.loads(inspect_arrays(folder / "f.npz", arrays).spec)
    (folder / "tokenizer.json").write_text("{}")
    parse_spec(content, folder / "spec.toml")
    return content


@pytest.mark.parametrize(
    ("arrays", "reader", "head"),
    [
        (
            {"x": np.zeros((N, 4, 6), np.uint8), "y": np.arange(N)},
            {"kind": "image", "height": 4, "width": 6, "mode": "L"},
            {"kind": "labels", "labels": N},
        ),
        (
            {"images.0": np.zeros((N, 4, 6, 3), np.uint8), "images.1": np.zeros((N, 8, 6, 3), np.uint8)},
            {"kind": "image", "height": [4, 8], "width": 6, "mode": "RGB"},
            {"kind": "tensors"},
        ),
        (
            {"texts": np.array(["a"] * N), "labels": np.array(["no", "yes"] * 6)},
            {"kind": "text", "tokenizer": "tokenizer.json"},
            {"kind": "labels", "labels": ["no", "yes"]},
        ),
        (
            {"series": np.zeros((N, 5, 3), np.float32), "lengths": np.full(N, 5), "y": RNG.random(N)},
            {"kind": "series", "channels": 3},
            {"kind": "values", "names": ["value_0"]},
        ),
        (
            {"a": np.zeros((N, 5), np.float32), "b": np.zeros(N, np.int64), "y": np.zeros((N, 2), int)},
            {
                "kind": "tensors",
                "inputs": [
                    {"name": "a", "dtype": "float32", "shape": ["batch", 5]},
                    {"name": "b", "dtype": "int64", "shape": ["batch"]},
                ],
            },
            {"kind": "multilabel", "labels": ["label_0", "label_1"]},
        ),
        (
            {"numbers": np.array([[1.0], [2.0]]), "categories": np.array([["x"], ["y"]])},
            {
                "kind": "table",
                "columns": [
                    {"name": "number_0", "kind": "number", "low": 1.0, "high": 2.0},
                    {"name": "category_0", "kind": "category", "values": ["x", "y"]},
                ],
            },
            {"kind": "tensors"},
        ),
    ],
)
def test_examples(tmp_path: Path, arrays: dict[str, Any], reader: dict[str, Any], head: dict[str, Any]) -> None:
    assert drafted(tmp_path, arrays) == {"reader": reader, "head": head}


@pytest.mark.parametrize(
    ("arrays", "reader", "labels"),
    [
        (
            {"conv.weight": np.zeros((8, 1, 3, 3)), "out.weight": np.zeros((10, 8)), "a.weight": np.zeros((99, 8))},
            {"kind": "image", "height": 224, "width": 224, "mode": "L"},
            8,
        ),
        (
            {"emb.weight": np.zeros((500, 8)), "out.weight": np.zeros((3, 8))},
            {"kind": "text", "tokenizer": "tokenizer.json", "vocabulary": 500},
            3,
        ),
        ({"fc.weight": np.zeros((4, 8))}, {"kind": "tensors"}, 4),
    ],
)
def test_weights(tmp_path: Path, arrays: dict[str, Any], reader: dict[str, Any], labels: int) -> None:
    assert drafted(tmp_path, arrays) == {"reader": reader, "head": {"kind": "labels", "labels": labels}}
    seen = inspect_arrays(tmp_path / "w.safetensors", arrays)
    assert FILL_IN in seen.spec
    assert f"{len(arrays)} arrays" in seen.text


def test_weights_without_matrices_are_tensors(tmp_path: Path) -> None:
    assert drafted(tmp_path, {"a.bias": np.zeros(3)}) == {"reader": {"kind": "tensors"}, "head": {"kind": "tensors"}}


def test_long_lists_are_cut(tmp_path: Path) -> None:
    arrays = {f"l{i}.bias": np.zeros(3) for i in range(60)}
    assert "and 20 more" in inspect_arrays(tmp_path / "w.safetensors", arrays).text
