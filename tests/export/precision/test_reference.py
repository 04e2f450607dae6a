"""The reference runs the graph as it stands; of a language model it needs the tokens alone."""

import numpy as np

from export.precision.reference import GraphReference
from tests.export.conftest import Candidates
from tests.export.precision.graphs import product, run


def test_outputs_have_the_names_of_the_graph(candidates: Candidates) -> None:
    source = candidates("tiny-picture").source
    x = np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    outputs = GraphReference(product(), source.reader, source.head)({"x": x})
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], run(product(), {"x": x}), atol=1e-6)


def test_a_language_model_gives_logits_and_the_keys_and_values_of_all_tokens(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    source = candidate.source
    ids = source.examples.inputs["ids"][:2, :5]
    outputs = GraphReference(candidate.model, source.reader, source.head)({"ids": ids})
    np.testing.assert_allclose(outputs["logits"], source.predict({"ids": ids})["logits"], atol=1e-4)
    assert {spec.name for spec in source.outputs} == set(outputs)
