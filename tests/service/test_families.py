"""The parameters of a family determine the tensors of its graph."""

import pytest
from pydantic import TypeAdapter

from service.families import TASK_OF_FAMILY, ImageSpec, LanguageModel, Parameters, SeriesTagger
from tests.service.bundles import FAMILIES, PARAMETERS, tensor_specs


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_determine_the_tensors_of_the_graph(family: str) -> None:
    """The graphs of the tiny models were written by hand from the definition of the families."""
    parameters = TypeAdapter[Parameters](Parameters).validate_python({"family": family, **PARAMETERS[family]})
    specs = tensor_specs(family)
    assert set(parameters.inputs) == set(specs["inputs"])
    assert set(parameters.outputs) == set(specs["outputs"])


def test_every_family_has_a_task() -> None:
    assert set(TASK_OF_FAMILY) == set(FAMILIES)
    assert set(TASK_OF_FAMILY.values()) == {"classify", "sequence-predict", "generate"}


def test_colour_images_have_a_last_axis_of_three() -> None:
    assert ImageSpec(height=2, width=3, mode="L").shape == (2, 3)
    assert ImageSpec(height=2, width=3, mode="RGB").shape == (2, 3, 3)


def test_cache_and_state_tensors_have_the_expected_names_and_shapes() -> None:
    model = LanguageModel(vocabulary=9, layers=2, heads=3, head_size=4)
    assert [spec.name for spec in model.inputs[2:]] == [
        *("past_key_0", "past_value_0"),
        *("past_key_1", "past_value_1"),
    ]
    assert model.inputs[2].shape == ("batch", 3, "past", 4)
    assert model.outputs[1].shape == ("batch", 3, "steps", 4)
    tagger = SeriesTagger(labels=("a", "b"), channels=5, layers=2, hidden=7)
    assert tagger.inputs[2].shape == tagger.outputs[3].shape == ("batch", 2, 7)
