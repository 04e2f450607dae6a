"""The operators known by heart become what their own translation says."""

import pytest

from export.gates.weights.counts import MOVES
from export.gates.weights.known import KNOWN, RECURRENT
from export.gates.weights.trace import operator_name, trace_module
from export.gates.weights.translation import translate_alone
from tests.export.conftest import Candidates


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-text"])
def test_what_is_known_by_heart_is_what_the_exporter_writes(candidates: Candidates, name: str) -> None:
    trace = trace_module(candidates(name).source)
    checked = set[str]()
    for node in trace.operators:
        operator = operator_name(node)
        if operator in {"sum", "mul", "relu", "softmax", "max_pool2d"} - checked:
            checked.add(operator)
            nodes = {one for one in translate_alone(node, trace.values).nodes if one not in MOVES}
            assert nodes <= {*KNOWN[operator], "Cast"}
    assert checked


def test_every_recurrent_layer_is_known() -> None:
    assert RECURRENT.keys() <= KNOWN.keys()
