"""Outputs are declared as the model's own answers show them, at several sizes of every free axis."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.sources.module.declared import declare_outputs
from export.sources.module.factory import Made
from export.sources.module.source import adapt
from export.sources.payload import read_payload
from export.spec import parse_spec
from service.contract.heads import EmbeddingHead, Head
from service.contract.tensors import Specs

FREE = {"kind": "image", "height": [4, 16], "width": [4, 16], "mode": "L"}


class Maps(nn.Module):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"maps": self.conv(x), "mean": x.mean((1, 2, 3))}


def declare(model: nn.Module, folder: Path, *, reader: Any, head: Any, **tables: Any) -> tuple[Head, Specs]:
    rng = np.random.default_rng(0)
    groups = {f"images.{i}": rng.integers(0, 256, (6, 4 * i, 8), dtype=np.uint8) for i in (1, 2)}
    groups |= {"images.3": rng.integers(0, 256, (6, 8, 12), dtype=np.uint8)}
    np.savez(folder / "e.npz", **groups)
    spec = parse_spec({"reader": reader, "head": head, **tables}, folder / "spec.toml")
    payload = read_payload(spec, folder / "e.npz")
    return declare_outputs(spec, adapt(Made(module=model, parameters=("x",)), spec, payload), payload)


def test_free_axes_of_outputs_are_those_of_inputs(tmp_path: Path) -> None:
    _, outputs = declare(Maps(), tmp_path, reader=FREE, head={"kind": "tensors"})
    assert [(spec.name, spec.shape) for spec in outputs] == [
        ("maps", ("batch", 2, "height", "width")),
        ("mean", ("batch",)),
    ]


def test_an_axis_that_no_input_has_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"axis 2 of output 'maps' varies \(2, 4\).*\[\[head.outputs\]\]"):
        declare(Maps(2), tmp_path, reader=FREE, head={"kind": "tensors"})
    outputs = [
        {"name": "maps", "dtype": "float32", "shape": ["batch", 2, "rows", "columns"]},
        {"name": "mean", "dtype": "float32", "shape": ["batch"]},
    ]
    limits = {"axes": {"rows": [2, 8], "columns": [2, 8]}}
    _, specs = declare(Maps(2), tmp_path, reader=FREE, head={"kind": "tensors", "outputs": outputs}, limits=limits)
    assert specs[0].shape == ("batch", 2, "rows", "columns")


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None].half()


@pytest.mark.parametrize(
    ("model", "head", "sentence"),
    [
        (Half(), {"kind": "values", "names": ["a"]}, "values of the model is float16, the head needs float32"),
        (Half(), {"kind": "values", "names": ["a", "b"]}, r"has the shape \[2, 1\] for 2 examples.*makes it \[2, 2\]"),
        (Maps(), {"kind": "token-labels", "labels": 2}, "the spec declares a pair that makes no model: token-labels"),
        (nn.Linear(3, 2), {"kind": "labels", "labels": 2}, "forward needs|the model fails on the first examples"),
    ],
)
def test_answers_that_the_head_cannot_have(tmp_path: Path, model: nn.Module, head: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        declare(model, tmp_path, reader=FREE, head=head)


class Vector(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3)), x.amin((1, 2, 3))], 1)


def test_the_size_of_an_embedding_is_that_of_the_answer(tmp_path: Path) -> None:
    head, _ = declare(Vector(), tmp_path, reader=FREE, head={"kind": "embedding", "normalized": True})
    assert head == EmbeddingHead(size=3, normalized=True)
