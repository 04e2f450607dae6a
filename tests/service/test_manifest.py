"""A manifest is consistent, and its version is derived from its content."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.contract.tensors import TensorSpec
from service.manifest import (
    FINITE,
    GOLDEN,
    MAX_FILES,
    MAX_ITEM_ELEMENTS,
    MODEL,
    REQUESTS,
    TOKENIZER,
    AxisRange,
    Manifest,
    ValueRange,
)
from tests.service.bundles import FAMILIES, TASK_OF_FAMILY, manifest_fields, tensor_specs


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
    assert f'{{\n  "format_version": 2,\n  "name": "{manifest.name}",\n' in manifest.to_json(), "people read it"


def test_version_of_a_known_content_never_changes() -> None:
    """Bundles outlive the code that reads them: a change of this version requires a new format_version."""
    manifest = versioned("image-classifier", files=file_entries(MODEL, GOLDEN, REQUESTS), provenance=provenance())
    assert manifest.version == "58745a6d1532"


def test_the_data_set_belongs_to_the_version_when_it_is_named() -> None:
    named = versioned("image-classifier", provenance={**provenance(), "dataset": "mnist-5000"})
    assert named.version != versioned("image-classifier", provenance=provenance()).version


def test_a_domain_names_inputs_of_floats_and_belongs_to_the_version() -> None:
    unlimited = versioned("series-classifier")
    limited = versioned("series-classifier", domain={"series": {"low": -3.0, "high": 3.0}})
    assert limited.version != unlimited.version
    for domain, message in (
        ({"lengths": {"low": 1, "high": 2}}, "no inputs of floats"),
        ({"other": {"low": 1, "high": 2}}, "no inputs of floats"),
        ({"series": {"low": 2, "high": 1}}, "low 2 is above high 1"),
    ):
        with pytest.raises(ValidationError, match=message):
            versioned("series-classifier", domain=domain)


def test_a_chat_template_belongs_to_the_version() -> None:
    """A language model without one keeps the version that it had before there were any."""
    head = manifest_fields("language-model")["head"]
    without = versioned("language-model", provenance=provenance())
    assert without.version == "9101415f5d23"
    template = {"source": "{{ messages }}", "special_tokens": {"bos_token": "<s>"}}
    assert (
        versioned("language-model", provenance=provenance(), head={**head, "chat_template": template}).version
        != without.version
    )


def test_control_flow_belongs_to_the_version() -> None:
    assert versioned().version == versioned(control_flow=False).version
    assert versioned(control_flow=True).version != versioned().version


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits": {"max_items": 0, "max_steps": 6}}, "greater than or equal to 1"),
        ({"limits": {"max_items": (1 << 16) + 1, "max_steps": 6}}, "less than or equal to 65536"),
        ({"limits": {"max_items": 8, "max_steps": (1 << 20) + 1}}, "less than or equal to 1048576"),
        ({"files": file_entries(MODEL, GOLDEN, REQUESTS, TOKENIZER, *map(str, range(MAX_FILES)))}, "at most 64 items"),
    ],
)
def test_manifest_beyond_a_limit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        versioned(**changes)
    versioned(limits={"max_items": 1 << 16, "max_steps": 1 << 20})


def test_manifest_of_an_item_beyond_the_limit_is_refused() -> None:
    def with_image(height: int, width: int) -> Manifest:
        reader = {"kind": "image", "height": height, "width": width, "mode": "L"}
        inputs = [TensorSpec(name="images", dtype="uint8", shape=("batch", height, width))]
        return versioned("image-classifier", reader=reader, inputs=inputs)

    with_image(1 << 24, MAX_ITEM_ELEMENTS >> 24)
    with pytest.raises(ValidationError, match="tensor 'images' has 1090519040 elements an item, expected at most"):
        with_image(1 << 24, (MAX_ITEM_ELEMENTS >> 24) + 1)


def test_steps_count_among_the_elements_of_an_item() -> None:
    fields = manifest_fields("language-model")
    outputs = [
        spec.model_copy(update={"shape": (*spec.shape[:2], 2048)}) if spec.name == "logits" else spec
        for spec in fields["outputs"]
    ]
    changes = {"reader": {**fields["reader"], "vocabulary": 2048}, "outputs": outputs}
    versioned("language-model", **changes, limits={"max_items": 1, "max_steps": 1 << 19})
    with pytest.raises(ValidationError, match="tensor 'logits' has 2147483648 elements an item"):
        versioned("language-model", **changes, limits={"max_items": 1, "max_steps": 1 << 20})


def test_rounding_and_mutation_score_belong_to_the_version() -> None:
    manifest = versioned()
    score = {"mutants": 9, "killed_at_export": 9, "killed_at_load": 8, "seed": 2}
    scored = versioned(mutation=score)
    tolerance = {name: {**t.model_dump(), "rounding": 1e-6} for name, t in manifest.tolerance.items()}
    rounded = versioned(tolerance=tolerance)
    assert len({manifest.version, scored.version, rounded.version}) == 3
    assert Manifest.model_validate_json(scored.to_json()).mutation == scored.mutation
    with pytest.raises(ValidationError, match="rounding"):
        versioned(tolerance={name: {**t, "rounding": 0.02} for name, t in tolerance.items()})


def test_a_mutation_score_holds_no_negative_number() -> None:
    score = {"mutants": 0, "killed_at_export": 0, "killed_at_load": 0, "seed": 0}
    versioned(mutation=score)
    for name in score:
        with pytest.raises(ValidationError, match=rf"mutation\.{name}\n  Input should be greater than or equal to 0"):
            versioned(mutation={**score, name: -1})


def with_strategy(strategy: str, *bounds: int, family: str = "text-classifier", **changes: Any) -> Manifest:
    invariance = {**manifest_fields(family)["invariance"], "strategy": strategy, "bounds": bounds}
    return versioned(family, invariance=invariance, **changes)


def test_bounds_of_buckets_ascend_and_only_buckets_have_bounds() -> None:
    assert with_strategy("batch-buckets", 1, 8, 64).invariance.bounds == (1, 8, 64)
    for bounds in ((8, 1), (8, 8)):
        with pytest.raises(ValidationError, match=rf"bounds \[8, {bounds[1]}\] do not ascend"):
            with_strategy("batch-buckets", *bounds)
    with pytest.raises(ValidationError, match="batch-buckets has 0 bounds; only buckets have bounds"):
        with_strategy("batch-buckets")
    with pytest.raises(ValidationError, match="minimum-batch-2 has 1 bounds; only buckets have bounds"):
        with_strategy("minimum-batch-2", 8)


def test_buckets_of_lengths_hold_every_length() -> None:
    max_steps = manifest_fields("text-classifier")["limits"]["max_steps"]
    with_strategy("length-buckets", 1, max_steps)
    with pytest.raises(ValidationError, match=f"length-buckets end at {max_steps - 1}, max_steps is {max_steps}"):
        with_strategy("length-buckets", 1, max_steps - 1)
    with pytest.raises(ValidationError, match="length-buckets needs a model with lengths and max_steps"):
        with_strategy("length-buckets", 1, max_steps, family="image-classifier")


def provenance() -> dict[str, Any]:
    return {**manifest_fields("image-classifier")["provenance"], "versions": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": {"kind": "tensors"}, "head": {"kind": "token-labels", "labels": ("a",)}}, "token-labels need"),
        ({"reader": {"kind": "series", "channels": 2}}, r"inputs .*: they differ in \['ids', 'series'\]"),
        ({"inputs": tensor_specs("series-classifier")["inputs"]}, r"inputs .*: they differ in \['ids', 'series'\]"),
        (
            {"outputs": tensor_specs("text-classifier")["outputs"][:1]},
            r"outputs lack .*: \['probabilities'\]",
        ),
        ({"inputs": tensor_specs("text-classifier")["inputs"] * 2}, "inputs are .*, expected .* each name once"),
        ({"tolerance": {}}, r"outputs and tolerances differ in \['logits', 'probabilities'\]"),
        ({"files": file_entries(MODEL, GOLDEN, REQUESTS)}, r"files lack \['tokenizer\.json'\]"),
        ({"name": "Tiny"}, "name"),
        ({"name": "tiny--texts"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "stats"}, "'stats' is a word of the routes, not the name of a model"),
    ],
)
def test_inconsistent_manifest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        versioned(**changes)


def test_number_of_labels_must_match_the_outputs() -> None:
    head = {"kind": "labels", "labels": ("travel", "food")}
    with pytest.raises(ValidationError, match=r"outputs lack .*: \['probabilities'\]"):
        versioned(head=head)


def test_every_free_axis_has_bounds() -> None:
    for limits in ({"max_items": 8}, {"max_items": 8, "axes": {"height": {"min": 1, "max": 2}}}):
        with pytest.raises(ValidationError, match=r"free axis 'steps'; limits\.max_steps is missing"):
            versioned(limits=limits)
    reader = {"kind": "image", "height": None, "width": 4, "mode": "L"}
    inputs = [TensorSpec(name="images", dtype="uint8", shape=("batch", "height", 4))]
    with pytest.raises(ValidationError, match=r"free axis 'height'; limits\.axes\.height is missing"):
        versioned("image-classifier", reader=reader, inputs=inputs)
    limits = {"max_items": 8, "axes": {"height": {"min": 2, "max": 6}}}
    manifest = versioned("image-classifier", reader=reader, inputs=inputs, limits=limits)
    assert manifest.limits.axis_range("height").max == 6
    assert Manifest.model_validate_json(manifest.to_json()).content_version() == manifest.version
    with pytest.raises(ValidationError, match="min 7 is above max 6"):
        versioned(limits={"max_items": 8, "axes": {"height": {"min": 7, "max": 6}}})


@pytest.mark.parametrize("layers", [0, 1025, 10**18])
def test_number_of_layers_is_bounded(layers: int) -> None:
    head = {**manifest_fields("language-model")["head"], "layers": layers}
    with pytest.raises(ValidationError, match=r"head\.language-model\.layers"):
        versioned("language-model", head=head)


def test_an_input_without_a_domain_has_the_range_of_float32() -> None:
    ranged = versioned("series-tagger", domain={"h": {"low": -0.1, "high": 1}})
    assert ranged.value_range("series") is FINITE
    assert ranged.value_range("h") == ValueRange(low=-0.1, high=1)
    assert (FINITE.low, FINITE.high) == (-np.finfo(np.float32).max, np.finfo(np.float32).max)


def test_bounds_are_rounded_to_float32_once() -> None:
    ranged = versioned("series-tagger", domain={"h": {"low": -0.1, "high": 1}})
    assert ranged.value_range("h").low == float(np.float32(-0.1))
    assert Manifest.model_validate_json(ranged.to_json()) == ranged


def test_sizes_may_be_multiples_of_a_number() -> None:
    one = AxisRange(min=8, max=20, multiple_of=4)
    assert [size for size in range(30) if size in one] == [8, 12, 16, 20] == list(one.sizes)
    assert [one.clip(size) for size in (1, 9, 11, 14, 15, 99)] == [8, 8, 12, 16, 16, 20]
    assert (str(one), str(AxisRange(min=1, max=3))) == ("8 to 20 in multiples of 4", "1 to 3")
    for low, high in ((6, 20), (8, 18)):
        with pytest.raises(ValidationError, match=f"min {low} and max {high} are not both multiples of 4"):
            AxisRange(min=low, max=high, multiple_of=4)


def test_a_manifest_of_any_size_keeps_its_version() -> None:
    """The version of a manifest whose axes are free in steps of 1 does not depend on the field."""
    height = {"min": 4, "max": 8}
    versions = {
        versioned(limits={"max_items": 8, "max_steps": 9, "axes": {"height": {**height, **more}}}).version
        for more in ({}, {"multiple_of": 1}, {"multiple_of": 4})
    }
    assert len(versions) == 2
    stored = json.loads(versioned(limits={"max_items": 8, "max_steps": 9, "axes": {"height": height}}).to_json())
    del stored["limits"]["axes"]["height"]["multiple_of"]
    assert Manifest.model_validate(stored).content_version() == stored["version"]


def variant(kind: str | None, atol: float) -> Manifest:
    precision = kind and {"kind": kind, "parent": f"tiny/{'0' * 12}", "items": 1, "agreement": 1.0}
    tolerance = {name: {"atol": atol, "rtol": 0.01, "measured": 0.0} for name in versioned().tolerance}
    return versioned(precision=precision, tolerance=tolerance)


def test_a_model_that_rounds_its_activations_may_have_a_wide_tolerance() -> None:
    assert variant("int8", 0.1).version != variant("int4", 0.1).version
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.1"):
        variant("int8", 0.2)


@pytest.mark.parametrize("kind", [None, "fp16", "tf32"])
def test_other_models_have_no_wide_tolerance(kind: str | None) -> None:
    manifest = variant(kind, 0.01)
    assert manifest.precision is None or kind
    assert manifest.allows_tf32 == (kind == "tf32")
    with pytest.raises(ValidationError, match=r"atol is 0.02, expected at most 0.01"):
        variant(kind, 0.02)
