"""The recurrent state that a Keras model takes and gives, as a series reader carries it: h and c of each layer.

A model is stateful if all its inputs but the series are initial states of its LSTM layers, and all its outputs but the
first are the states of those layers afterwards.
"""

from dataclasses import dataclass
from typing import Any

from export.sources.keras.twin import calls, graph_of, tensors_of


@dataclass(frozen=True, kw_only=True)
class StatefulLayer:
    """Positions of h and c of one layer among the model's inputs and among its outputs."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    hidden: int


def find_states(model: Any) -> tuple[StatefulLayer, ...]:
    """The stateful layers in the order of the graph; () if the model takes no state, or more than one series."""
    function = graph_of(model)
    inputs = {id(tensor): position for position, tensor in enumerate(function.inputs)}
    outputs = {id(tensor): position for position, tensor in enumerate(function.outputs)}
    found = []
    for node in calls(function):
        states = [id(tensor) for tensor in tensors_of(node)[1:]]
        results = [id(tensor) for tensor in node.outputs[1:]]
        is_carried = set(states) <= set(inputs) and set(results) <= set(outputs)
        if type(node.operation).__name__ == "LSTM" and len(states) == len(results) == 2 and is_carried:
            h, c = (inputs[state] for state in states)
            next_h, next_c = (outputs[result] for result in results)
            found.append(StatefulLayer(inputs=(h, c), outputs=(next_h, next_c), hidden=node.operation.units))
    taken = sorted(position for layer in found for position in layer.inputs)
    given = sorted(position for layer in found for position in layer.outputs)
    is_whole = taken == list(range(1, len(inputs))) and given == list(range(1, len(outputs)))
    return tuple(found) if is_whole and len({layer.hidden for layer in found}) == 1 else ()
