"""Manifests that an earlier revision wrote keep their versions and are served by the same tasks."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.contract.format_1 import FAMILY_OF_PAIR
from service.manifest import Manifest
from tests.service.bundles import TASK_OF_FAMILY

MANIFESTS = sorted((Path(__file__).parent / "format_1").glob("*.json"))


def content_of(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "format_1" / f"{name}.json").read_text())
    return content


def test_there_is_a_manifest_of_every_family() -> None:
    families = {json.loads(path.read_text())["parameters"]["family"] for path in MANIFESTS}
    assert families == set(FAMILY_OF_PAIR.values()) == set(TASK_OF_FAMILY)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_an_old_manifest_has_its_version_and_its_task(path: Path) -> None:
    content = json.loads(path.read_text())
    manifest = Manifest.model_validate_json(path.read_text())
    assert manifest.format_version == 1
    assert manifest.content_version() == manifest.version == content["version"]
    assert manifest.task == content["task"]
    assert list(manifest.labels) == content["parameters"].get("labels", [])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_an_old_manifest_is_written_as_a_pair(path: Path) -> None:
    """What is read from format 1 and written again keeps its version."""
    manifest = Manifest.model_validate_json(path.read_text())
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


def test_every_part_of_the_old_parameters_belongs_to_the_version() -> None:
    for name, part, value in [
        ("mnist-mlp", "labels", [str(9 - i) for i in range(10)]),
        ("mnist-gan", "latent_size", 99),
        ("news-lstm", "vocabulary", 4095),
    ]:
        content = content_of(name)
        content["parameters"][part] = value
        try:
            manifest = Manifest.model_validate(content)
        except ValidationError:
            continue
        assert manifest.content_version() != manifest.version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "oracle"}, "family is 'oracle', expected one of"),
        ({"colour": 1}, r"has no parameters \['colour'\]"),
        ({"image": None}, "not those of a family of format 1"),
    ],
)
def test_other_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    content = content_of("mnist-mlp")
    content["parameters"].update(change)
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(content)


def test_a_pair_without_a_family_has_no_format_1() -> None:
    fields = Manifest.model_validate(content_of("mnist-mlp")).model_dump()
    fields["head"] = {"kind": "multilabel", "labels": fields["head"]["labels"]}
    with pytest.raises(ValidationError, match="format 1 has no pair image -> multilabel"):
        Manifest.model_validate(fields)
