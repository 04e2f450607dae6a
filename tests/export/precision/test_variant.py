"""A variant has the contract of its model, a name of its own, and the parent that it is compared with."""

import numpy as np
import pytest

from export.errors import ExportError
from export.precision.variant import MIN_ROUNDING, variant_of
from tests.export.conftest import Candidates


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


def test_a_model_without_large_weights_has_no_integer_variant(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    with pytest.raises(ExportError, match="precision: tiny-rnn has no weights that int8 would store in fewer bits"):
        variant_of(candidate.source, candidate.model, "int8", candidate.manifest)
