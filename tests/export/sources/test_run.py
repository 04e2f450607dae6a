"""The source of a run repeats what training recorded, and computes what the run's model computes."""

import numpy as np
import pytest
import torch

from export.sources.run import run_source
from tests.export.conftest import Runs
from tests.export.tiny import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_contract_examples_and_provenance_are_those_of_the_run(runs: Runs, name: str) -> None:
    run = runs(name)
    source = run_source(run)
    assert (source.name, source.summary, source.run) == (name, run.recipe.summary, run)
    assert source.examples is run.test
    assert (source.tokenizer, source.tokens) == (run.tokenizer, run.tokens)
    assert (source.atol, source.rtol) == (run.recipe.tolerance.atol, run.recipe.tolerance.rtol)
    assert (source.limits.max_items, source.limits.max_steps) == (run.recipe.max_items, run.recipe.max_steps)
    assert source.provenance.metrics == run.checkpoint.metrics
    assert (source.provenance.dataset, source.note) == ("tiny", "Drawn from a seed.")
    assert {"torch", "onnx", "onnxruntime"} <= set(source.provenance.versions)


def test_the_reference_is_the_model_in_both_precisions(runs: Runs) -> None:
    run = runs("tiny-picture")
    source = run_source(run)
    images = run.test.inputs["images"][:5]
    with torch.no_grad():
        expected = run.model(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(source.predict({"images": images})["logits"], expected)
    assert source.predict_float64 is not None
    exact = source.predict_float64({"images": images})["logits"]
    assert exact.dtype == np.float64
    np.testing.assert_allclose(expected, exact, rtol=1e-4, atol=1e-5)


def test_the_module_has_positional_inputs_and_outputs_in_the_order_of_the_graph(runs: Runs) -> None:
    source = run_source(runs("tiny-text"))
    assert source.module is not None
    inputs = {name: array[:3] for name, array in source.examples.inputs.items()}
    with torch.no_grad():
        outputs = source.module(*(torch.from_numpy(inputs[spec.name]) for spec in source.inputs))
    expected = source.predict(inputs)
    for spec, output in zip(source.outputs, outputs, strict=True):
        np.testing.assert_array_equal(output.numpy(), expected[spec.name])


def test_a_pair_of_networks_leaves_its_discriminator_behind(runs: Runs) -> None:
    module = run_source(runs("tiny-gan")).module
    assert module is not None
    names = [name for name, _ in module.named_parameters()]
    assert names
    assert not any("discriminator" in name for name in names)
    assert any(name.startswith("model.generator.") for name in names)
