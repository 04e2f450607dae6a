"""An adapter takes rows by canonical name and returns canonical outputs, whatever the model's own axes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.sources.module.adapter import Adapter, run_adapter
from export.sources.module.inputs import build_input
from export.sources.module.outputs import build_output
from export.spec import parse_spec
from service.contract.tensors import Specs, float32, int64


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, state = self.lstm(x, (h, c))
        return self.out(hidden), state


def adapter(model: nn.Module, reader: dict[str, Any], head: dict[str, Any], inputs: Specs, **keys: Any) -> Adapter:
    spec, names = parse_spec({"reader": reader, "head": head}, Path("spec.toml")), [one.name for one in inputs]
    return Adapter(model, build_input(spec, None, names), build_output(spec), inputs=inputs, output=None, **keys)


def test_a_state_is_given_and_returned_by_row() -> None:
    reader = {"kind": "series", "channels": 2, "input": "x", "state": {"layers": 1, "hidden": 4}}
    inputs = (
        float32("series", "batch", "steps", 2),
        int64("lengths", "batch"),
        float32("h", "batch", 1, 4),
        float32("c", "batch", 1, 4),
    )
    module = adapter(Tagger(), reader, {"kind": "token-labels", "labels": 3}, inputs, has_state=True)
    state = np.zeros((5, 1, 4), np.float32)
    rows = {"series": np.ones((5, 6, 2), np.float32), "lengths": np.full(5, 6), "h": state, "c": state}
    answer = run_adapter(module, rows)
    assert {name: array.shape for name, array in answer.items()} == {
        "logits": (5, 6, 3),
        "probabilities": (5, 6, 3),
        "next_h": (5, 1, 4),
        "next_c": (5, 1, 4),
    }


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(0)


def test_rows_are_given_in_the_axes_of_the_graph() -> None:
    module = adapter(Sum(), {"kind": "tensors"}, {"kind": "tensors"}, (float32("x", 3, "batch"),), outputs=["sum"])
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert run_adapter(module, {"x": rows})["sum"].tolist() == rows.sum(1).tolist()
    assert run_adapter(module, {"x": rows}, torch.float64)["sum"].dtype == np.float64


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2).sum(1, keepdim=True)


def test_a_model_that_changes_its_inputs_in_place_changes_no_items() -> None:
    model = adapter(InPlace(), {"kind": "tensors"}, {"kind": "tensors"}, (float32("x", "batch", 3),), outputs=("y",))
    rows = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(run_adapter(model, {"x": rows})["y"], [[6], [6]])
    np.testing.assert_array_equal(rows, 1)


def test_other_numbers_of_outputs_are_refused() -> None:
    module = adapter(Sum(), {"kind": "tensors"}, {"kind": "tensors"}, (float32("x", "batch", 3),), outputs=["a", "b"])
    with pytest.raises(ValueError, match=r"\[head\] has 2 outputs, the model returns 0"):
        run_adapter(module, {"x": np.ones((2, 3), np.float32)})


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


def test_a_model_that_returns_nothing_is_refused() -> None:
    module = adapter(Nothing(), {"kind": "tensors"}, {"kind": "tensors"}, (float32("x", "batch", 3),))
    with pytest.raises(ValueError, match="the model returns no tensor"):
        run_adapter(module, {"x": np.ones((2, 3), np.float32)})
