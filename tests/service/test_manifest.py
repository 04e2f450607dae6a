"""A manifest is consistent, and its version is derived from its content."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.families import TASK_OF_FAMILY
from service.manifest import GOLDEN, MODEL, REQUESTS, TOKENIZER, Manifest
from tests.service.bundles import FAMILIES, manifest_fields, tensor_specs


def versioned(family: str = "text-classifier", **changes: Any) -> Manifest:
    return Manifest.versioned(**{**manifest_fields(family), "files": file_entries(), **changes})


def file_entries(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"sha256": "a" * 64, "bytes": 1} for name in names or (MODEL, GOLDEN, REQUESTS, TOKENIZER)}


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_manifest_of_every_family_is_accepted(family: str) -> None:
    assert versioned(family).task == TASK_OF_FAMILY[family]


def test_version_depends_only_on_the_content() -> None:
    one, same = versioned(), versioned(files=dict(reversed(file_entries().items())))
    assert one.version == same.version == one.content_version()
    assert versioned(summary="Another.").version != one.version
    assert one.model_copy(update={"version": "f" * 12}).content_version() == one.version


def test_json_round_trip() -> None:
    manifest = versioned(summary="駅弁\u2028")
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
    assert "駅弁" in manifest.to_json()


def test_version_of_a_known_content_never_changes() -> None:
    """Bundles outlive the code that reads them: a change of this version requires a new format_version."""
    manifest = versioned("image-classifier", files=file_entries(MODEL, GOLDEN, REQUESTS), provenance=provenance())
    assert manifest.version == "a8b8d300b51c"


def test_a_domain_names_inputs_of_floats_and_belongs_to_the_version() -> None:
    unbounded = versioned("series-classifier")
    bounded = versioned("series-classifier", domain={"series": {"low": -3.0, "high": 3.0}})
    assert bounded.version != unbounded.version
    for domain, message in (
        ({"lengths": {"low": 1, "high": 2}}, "no inputs of floats"),
        ({"other": {"low": 1, "high": 2}}, "no inputs of floats"),
        ({"series": {"low": 2, "high": 1}}, "low 2 is above high 1"),
    ):
        with pytest.raises(ValidationError, match=message):
            versioned("series-classifier", domain=domain)


def provenance() -> dict[str, Any]:
    return {**manifest_fields("image-classifier")["provenance"], "versions": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "classify"}, "task is 'classify', a text-classifier serves 'sequence-predict'"),
        ({"inputs": tensor_specs("series-classifier")["inputs"]}, r"inputs .*: they differ in \['ids', 'series'\]"),
        (
            {"outputs": tensor_specs("text-classifier")["outputs"][:1]},
            r"outputs .*: they differ in \['probabilities'\]",
        ),
        ({"inputs": tensor_specs("text-classifier")["inputs"] * 2}, r"inputs are not those .*: they differ in \[\]"),
        ({"tolerance": {}}, r"outputs and tolerances differ in \['logits', 'probabilities'\]"),
        ({"files": file_entries(MODEL, GOLDEN, REQUESTS)}, r"files lack \['tokenizer\.json'\]"),
        ({"name": "Tiny"}, "name"),
        ({"name": "tiny--texts"}, "name"),
        ({"name": "x" * 65}, "name"),
    ],
)
def test_inconsistent_manifest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        versioned(**changes)


def test_number_of_labels_must_match_the_outputs() -> None:
    parameters = {**manifest_fields("text-classifier")["parameters"], "labels": ("travel", "food")}
    with pytest.raises(ValidationError, match=r"outputs .*: they differ in \['logits', 'probabilities'\]"):
        versioned(parameters=parameters)


@pytest.mark.parametrize("layers", [0, 1025, 10**18])
def test_number_of_layers_is_bounded(layers: int) -> None:
    parameters = {**manifest_fields("language-model")["parameters"], "layers": layers}
    with pytest.raises(ValidationError, match=r"parameters\.language-model\.layers"):
        versioned("language-model", parameters=parameters)
