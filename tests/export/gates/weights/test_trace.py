"""The trace records PyTorch's own operators, and evaluates what does not depend on the inputs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.gates.weights.trace import arguments_of, operator_name, trace_module, typed_arguments
from export.sources.run import run_source
from tests.export.conftest import Runs
from training.layers import Ragged


class Scaled(nn.Module):
    """Computes a weight from parameters, and draws nothing that depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(4, 3))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        weight = (self.weight * self.scale.exp())[1:]
        return series[:, 0] @ weight.T + 0 * lengths[:, None]


def test_recurrent_layers_are_one_operator_with_all_parameters(runs: Runs) -> None:
    forward = Ragged.forward
    trace = trace_module(run_source(runs("tiny-lstm")))
    [lstm] = [node for node in trace.operators if operator_name(node) == "lstm"]
    names = [trace.values[parameter].names for parameter in arguments_of(lstm)["params"]]
    assert names == [
        (f"ragged.rnn.{name}_l{layer}",)
        for layer in (0, 1)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert Ragged.forward is forward


def test_arguments_have_names_types_and_defaults(runs: Runs) -> None:
    trace = trace_module(run_source(runs("tiny-picture")))
    [pool] = [node for node in trace.operators if operator_name(node) == "max_pool2d"]
    assert arguments_of(pool) | {"self": None} == {
        "self": None, "kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "ceil_mode": False
    }  # fmt: skip
    [norm] = [node for node in trace.operators if operator_name(node) == "batch_norm"]
    assert ("eps", "float", 1e-05) in typed_arguments(norm)


def test_what_parameters_alone_determine_is_computed_in_both_precisions(runs: Runs) -> None:
    model = Scaled()
    trace = trace_module(run_source(replace(runs("tiny-rnn"), model=model)))
    [value] = [
        value for value in trace.values.values() if value.names == ("weight", "scale") and value.single.shape == (3, 3)
    ][-1:]
    expected = (model.weight.double() * model.scale.double().exp())[1:].T.detach()
    torch.testing.assert_close(value.double, expected, rtol=0, atol=0)
    torch.testing.assert_close(value.single, expected.float())
    assert value.change == "folded"


class Rearranged(nn.Module):
    """Uses a weight whose elements were rearranged."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(4, 3))
        self.move = move

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        return series[:, 0] @ self.move(self.weight) + 0 * lengths[:, None]


@pytest.mark.parametrize(
    ("move", "change"),
    [
        (lambda weight: weight.T, "transposed"),
        (lambda weight: weight.reshape(3, 4), "reshaped"),
        (lambda weight: weight.view(3, 4), "reshaped"),
        (lambda weight: weight.view(2, 3, 2).select(0, 1), "split"),
        (lambda weight: torch.cat([weight[:2], weight[3:]]), "joined"),
        (lambda weight: torch.ops.aten.alias(weight.T.clone()), "transposed"),
        (lambda weight: weight.T.exp().clone(), "folded"),
    ],
    ids=["transpose", "reshape", "view", "select", "cat", "alias", "exp"],
)
def test_a_change_of_shape_or_order_is_named(runs: Runs, move: Callable[[Tensor], Tensor], change: str) -> None:
    trace = trace_module(run_source(replace(runs("tiny-rnn"), model=Rearranged(move))))
    *_, value = (value for value in trace.values.values() if value.names == ("weight",))
    assert value.change == change
    torch.testing.assert_close(value.single, move(value.stored), rtol=0, atol=0)


def test_whole_numbers_are_collected(runs: Runs) -> None:
    numbers = trace_module(run_source(runs("tiny-picture"))).integers
    # The kernel, the flattened picture, the classes; the size of the example batch is none.
    assert {2, 96, 4} <= numbers
    assert 5 not in numbers


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        return series if float(series.sum()) > 0 else lengths * self.weight


def test_a_module_that_cannot_be_traced_is_refused(runs: Runs) -> None:
    with pytest.raises(ExportError, match="weights: PyTorch cannot trace tiny-rnn: "):
        trace_module(run_source(replace(runs("tiny-rnn"), model=Untraceable())))
