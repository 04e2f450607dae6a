"""An SBOM is valid CycloneDX, complete, and the same for the same lock files."""

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.supply_chain.images import LOCK_FILES, packages_of
from deploy.supply_chain.licences import read_licences
from deploy.supply_chain.sbom import write_sbom


def sbom(image: str, version: str = "0.1.0") -> str:
    return write_sbom(image, packages_of(image), read_licences().packages, version=version)


def test_the_document_is_valid() -> None:
    """Of a sample of the packages, because the validator takes 0.2 s per component, and all have the same form."""
    licences, packages = read_licences().packages, packages_of("export")
    sample = [*packages[::20], *(package for package in packages if not package.hashes or package.name == "numpy")]
    assert {licences[package.name] for package in sample} > {"BSD-3-Clause", licences["numpy"]}
    text = write_sbom("export", sample, licences, version="0.1.0")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.parametrize("image", LOCK_FILES)
def test_every_package_is_a_component_with_version_licence_and_hashes(image: str) -> None:
    document: dict[str, Any] = json.loads(sbom(image))
    components = {component["purl"]: component for component in document["components"]}
    assert list(components) == [package.purl for package in packages_of(image)]
    for package in packages_of(image):
        component = components[package.purl]
        assert component["licenses"][0]["expression"]
        digests = [entry["content"] for link in component.get("externalReferences", []) for entry in link["hashes"]]
        assert tuple(digests) == package.hashes
    assert document["dependencies"][0]["dependsOn"] == list(components)


def test_the_serial_number_follows_the_content() -> None:
    assert sbom("serve") == sbom("serve")
    serials = {json.loads(text)["serialNumber"] for text in (sbom("serve"), sbom("gpu"), sbom("serve", "0.2.0"))}
    assert len(serials) == 3
