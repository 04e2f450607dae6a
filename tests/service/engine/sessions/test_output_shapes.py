"""A row never gets the answer of another row: outputs of other axes than the manifest's are an error."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.bundle import Bundle
from service.contract.tensors import float32
from service.engine.sessions.output_shapes import OutputShapes
from service.engine.sessions.session import Session
from tests.service.bundles import FAMILIES, example_inputs, golden_cases
from tests.service.engine.fakes import manifest

NUM_ROWS = 3


def with_rows(bundle: Bundle, operator: str) -> bytes:
    """The graph, whose probabilities lack the rows with a first pixel of 77, or which are those of all rows twice."""
    model = onnx.load_from_string(bundle.model)
    for node in model.graph.node:
        node.output[:] = ["all_rows" if name == "probabilities" else name for name in node.output]
    constants: dict[str, Any] = {
        "start": [0, 0],
        "end": [1, 1],
        "axes": [1, 2],
        "77": 77,
        "one_axis": [-1],
        "two": [2, 1],
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    first_pixel = [
        helper.make_node("Slice", ["images", "start", "end", "axes"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["numbers"], to=onnx.TensorProto.INT64),
        helper.make_node("Equal", ["numbers", "77"], ["is_equal"]),
        helper.make_node("Not", ["is_equal"], ["is_kept"]),
        helper.make_node("Reshape", ["is_kept", "one_axis"], ["rows"]),
        helper.make_node("Compress", ["all_rows", "rows"], ["probabilities"], axis=0),
    ]
    twice = [helper.make_node("Tile", ["all_rows", "two"], ["probabilities"])]
    model.graph.node.extend(first_pixel if operator == "Compress" else twice)
    content: bytes = model.SerializeToString()
    return content


def test_rows_that_a_graph_drops_are_an_error_and_shift_no_others(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    session = Session(with_rows(bundle, "Compress"), manifest=bundle.manifest, device="cpu")
    inputs = example_inputs("image-classifier", batch=NUM_ROWS)
    inputs["images"][:, 0, 0] = 0
    assert len(session.run(inputs)["probabilities"]) == NUM_ROWS
    inputs["images"][1, 0, 0] = 77
    with pytest.raises(RuntimeError, match=r"output 'probabilities' has the axes \[2, 3\], expected \[3, 3\]"):
        session.run(inputs)


@pytest.mark.parametrize("strategy", ["none", "minimum-batch-2"])
def test_rows_that_a_graph_repeats_are_an_error_under_every_shape_strategy(
    bundles: dict[str, Bundle], strategy: str
) -> None:
    bundle = bundles["image-classifier"]
    invariance = bundle.manifest.invariance.model_copy(update={"strategy": strategy})
    changed = bundle.manifest.model_copy(update={"invariance": invariance})
    session = Session(with_rows(bundle, "Tile"), manifest=changed, device="cpu")
    with pytest.raises(RuntimeError, match="output 'probabilities' has the axes"):
        session.run(example_inputs("image-classifier", batch=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_every_family_pass(family: str) -> None:
    shapes = OutputShapes(manifest(family).inputs, manifest(family).outputs)
    for case in golden_cases(family):
        shapes.check(case.inputs, case.outputs)


@pytest.mark.parametrize(
    ("shape", "passes"),
    [((2, 5, 3), True), ((2, 7, 3), True), ((1, 5, 3), False), ((2, 5, 4), False), ((2, 5), False)],
)
def test_an_axis_that_no_input_has_is_of_any_size(shape: tuple[int, ...], passes: bool) -> None:
    shapes = OutputShapes((float32("pixels", "batch", 4),), (float32("boxes", "batch", "found", 3),))
    with nullcontext() if passes else pytest.raises(ValueError, match=r"output 'boxes' .*, expected \[2, 'found', 3\]"):
        shapes.check({"pixels": np.zeros((2, 4), np.float32)}, {"boxes": np.zeros(shape, np.float32)})
