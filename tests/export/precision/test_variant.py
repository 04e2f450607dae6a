"""A variant has the contract of its model, a name of its own, and the parent that it is compared with."""

import numpy as np
import pytest
from onnx.helper import make_node

from export.errors import ExportError
from export.precision.variant import MIN_ROUNDING, variant_of
from tests.export.conftest import Candidates
from tests.export.precision.graphs import model


@pytest.mark.parametrize("name", ["tiny-language", "tiny-tagger"])
def test_the_contract_stays_and_the_name_says_the_precision(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    source = candidate.source
    variant, graph = variant_of(source, candidate.model, "fp16", candidate.manifest)
    assert variant.name == f"{source.name}-fp16"
    assert (variant.inputs, variant.outputs, variant.reader, variant.head) == (
        source.inputs,
        source.outputs,
        source.reader,
        source.head,
    )
    assert variant.parent is source
    assert variant.precision is not None
    assert variant.precision.parent == f"{candidate.manifest.name}/{candidate.manifest.version}"
    assert (variant.run, variant.module, variant.min_rounding) == (None, None, MIN_ROUNDING)
    assert not {key for key in variant.provenance.metrics if key.startswith("test_")}
    assert len(graph) < len(candidate.model)


def test_the_states_of_a_series_start_at_zero(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    variant, _ = variant_of(candidate.source, candidate.model, "fp16", candidate.manifest)
    states = variant.examples.inputs["h"], variant.examples.inputs["c"]
    assert all(len(state) == len(variant.examples) and not state.any() for state in states)
    outputs = variant.predict({name: array[:4] for name, array in variant.examples.inputs.items()})
    assert np.isfinite(outputs["probabilities"]).all()


def test_tf32_computes_the_graph_of_its_parent(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    variant, graph = variant_of(candidate.source, candidate.model, "tf32", candidate.manifest)
    assert graph == candidate.model
    assert variant.reference == "the graph in float32 with the products of tf32"
    inputs = {name: array[:4] for name, array in candidate.source.examples.inputs.items()}
    expected, actual = candidate.source.predict(inputs), variant.predict(inputs)
    differences = [np.abs(actual[name].astype(np.float64) - array).max() for name, array in expected.items()]
    assert 1e-6 < max(differences) < 0.01


def test_a_model_without_products_has_no_variant_in_tf32(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    relu = model([make_node("Relu", ["x"], ["y"])], {}, inputs={"x": [3]}, outputs={"y": [3]})
    with pytest.raises(ExportError, match="precision: tiny-rnn has no products that tf32 would round"):
        variant_of(candidate.source, relu, "tf32", candidate.manifest)


def test_a_model_without_large_weights_has_no_integer_variant(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    with pytest.raises(ExportError, match="precision: tiny-rnn has no weights that int8 would store in fewer bits"):
        variant_of(candidate.source, candidate.model, "int8", candidate.manifest)
