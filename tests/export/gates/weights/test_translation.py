"""An operator translated by itself shows its nodes, its numbers, and where it moves its weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.gates.weights.trace import operator_name, trace_module
from export.gates.weights.translation import Number, Rearranged, signature_of, translate_alone
from service.contract.tensors import float32
from tests.export.graph.modules import module_source


class Operators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bi,oi->bo", x, self.weight)
        return self.norm(y).cumsum(1) + torch.special.zeta(y, y)


def traced() -> tuple[dict[str, Any], dict[Any, Any]]:
    trace = trace_module(module_source(Operators(), inputs=(float32("x", "batch", 3),)))
    return {operator_name(node): node for node in trace.operators}, trace.values


def test_weights_are_found_wherever_the_translation_moves_them() -> None:
    nodes, values = traced()
    translation = translate_alone(nodes["einsum"], values)
    [weight] = [one for one in translation.floats if isinstance(one, Rearranged)]
    assert weight.operand == 1
    assert sorted(weight.order.ravel()) == list(range(12))
    norm = translate_alone(nodes["group_norm"], values)
    operands = [one.operand for one in norm.floats if isinstance(one, Rearranged)]
    assert operands[-2:] == [1, 2]
    assert any(isinstance(one, Number) and np.isclose(one.value, 1e-5).all() for one in norm.floats)


def test_the_nodes_of_an_operator_are_listed() -> None:
    nodes, values = traced()
    assert "CumSum" in translate_alone(nodes["cumsum"], values).nodes


def test_an_operator_without_translation_is_refused_by_name() -> None:
    nodes, values = traced()
    zeta = next(name for name in nodes if "zeta" in name)
    with pytest.raises(
        ExportError, match=r"weights: the operator '.*zeta' of the module cannot be translated by itself"
    ):
        translate_alone(nodes[zeta], values)


def test_operators_of_one_kind_have_one_signature() -> None:
    nodes, values = traced()
    signatures = {signature_of(node, values) for node in nodes.values()}
    assert len(signatures) == len(nodes)
