"""A manifest is consistent in itself, and its version is its content."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.manifest import GOLDEN, MODEL, REQUESTS, TASKS, TOKENIZER, Image, LanguageModel, Manifest, SeriesTagger
from tests.service.bundles import FAMILIES, manifest_fields, tensor_specs


def sealed(family: str = "text-classifier", **changes: Any) -> Manifest:
    return Manifest.sealed(**{**manifest_fields(family), "files": hashes(), **changes})


def hashes(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"sha256": "a" * 64, "bytes": 1} for name in names or (MODEL, GOLDEN, REQUESTS, TOKENIZER)}


def test_the_version_is_the_content() -> None:
    one, same = sealed(), sealed(files=dict(reversed(hashes().items())))
    assert one.version == same.version == one.content_version()
    assert sealed(summary="Another.").version != one.version
    assert one.model_copy(update={"version": "f" * 12}).content_version() == one.version


def test_json_and_back() -> None:
    manifest = sealed(summary="駅弁\u2028")
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
    assert "駅弁" in manifest.to_json()


def test_the_version_of_a_known_content_never_changes() -> None:
    """Bundles outlive the code that reads them: whoever must change this number also raises format_version."""
    manifest = sealed("image-classifier", files=hashes(MODEL, GOLDEN, REQUESTS), provenance=provenance())
    assert manifest.version == "a8b8d300b51c"


def provenance() -> dict[str, Any]:
    return {**manifest_fields("image-classifier")["provenance"], "versions": {}}


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_call_for_the_tensors_of_the_graph(family: str) -> None:
    """The tiny graphs were written by hand from the families' definition."""
    manifest = sealed(family)
    specs = tensor_specs(family)
    assert set(manifest.parameters.inputs) == set(specs["inputs"])
    assert set(manifest.parameters.outputs) == set(specs["outputs"])


def test_every_family_serves_a_task() -> None:
    assert set(TASKS) == set(FAMILIES)
    assert {sealed(family).task for family in FAMILIES} == {"classify", "sequence-predict", "generate"}


def test_colour_is_a_last_axis_of_three() -> None:
    assert Image(height=2, width=3, mode="L").axes == (2, 3)
    assert Image(height=2, width=3, mode="RGB").axes == (2, 3, 3)


def test_caches_and_states_are_named_by_layer() -> None:
    model = LanguageModel(vocabulary=9, layers=2, heads=3, head_size=4)
    assert [spec.name for spec in model.inputs[2:]] == [
        *("past_key_0", "past_value_0"),
        *("past_key_1", "past_value_1"),
    ]
    assert model.inputs[2].shape == ("batch", 3, "past", 4)
    assert model.outputs[1].shape == ("batch", 3, "steps", 4)
    tagger = SeriesTagger(labels=("a", "b"), channels=5, layers=2, hidden=7)
    assert tagger.inputs[2].shape == tagger.outputs[3].shape == ("batch", 2, 7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "classify"}, "task is 'classify', a text-classifier serves 'sequence-predict'"),
        ({"inputs": tensor_specs("series-classifier")["inputs"]}, r"inputs .*: they differ in \['ids', 'series'\]"),
        (
            {"outputs": tensor_specs("text-classifier")["outputs"][:1]},
            r"outputs .*: they differ in \['probabilities'\]",
        ),
        ({"inputs": tensor_specs("text-classifier")["inputs"] * 2}, r"inputs are not those .*: they differ in \[\]"),
        ({"tolerance": {}}, r"outputs and tolerances differ in \['logits', 'probabilities'\]"),
        ({"files": hashes(MODEL, GOLDEN, REQUESTS)}, r"files lack \['tokenizer\.json'\]"),
        ({"name": "Tiny"}, "name"),
        ({"name": "tiny--texts"}, "name"),
        ({"name": "x" * 65}, "name"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        sealed(**changes)


def test_labels_and_scores_have_the_same_number() -> None:
    parameters = {**manifest_fields("text-classifier")["parameters"], "labels": ("travel", "food")}
    with pytest.raises(ValidationError, match=r"outputs .*: they differ in \['logits', 'probabilities'\]"):
        sealed(parameters=parameters)


@pytest.mark.parametrize("layers", [0, 1025, 10**18])
def test_a_manifest_cannot_call_for_endless_tensors(layers: int) -> None:
    parameters = {**manifest_fields("language-model")["parameters"], "layers": layers}
    with pytest.raises(ValidationError, match=r"parameters\.language-model\.layers"):
        sealed("language-model", parameters=parameters)
