"""Write the software bill of materials of an image in CycloneDX 1.6.

Invariant: the same lock files give the same bytes. The serial number is derived from the content, and there is no time.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from deploy.supply_chain.lock_file import Package

NAMESPACE = uuid.UUID("6b1f5f0e-6f0c-5b0e-9d55-0d6d7a0f3c2a")


def write_sbom(image: str, packages: Iterable[Package], licences: Mapping[str, str], *, version: str) -> str:
    """Return the document of an image of this project's `version`; `licences` holds an SPDX expression by package."""
    components = [_component(package, licences[package.name]) for package in packages]
    application = {
        "type": "application",
        "bom-ref": f"ekiben-{image}",
        "name": f"ekiben-{image}",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    dependencies = [{"ref": f"ekiben-{image}", "dependsOn": [component["bom-ref"] for component in components]}]
    content = json.dumps([application, components], sort_keys=True).encode()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, hashlib.sha256(content).hexdigest())}",
        "version": 1,
        "metadata": {"component": application},
        "components": components,
        "dependencies": dependencies,
    }
    return json.dumps(document, indent=1) + "\n"


def _component(package: Package, licence: str) -> dict[str, Any]:
    component = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "licenses": [{"expression": licence}],
    }
    if package.hashes:
        # Of all published files of this version, of which an image installs one.
        hashes = [{"alg": "SHA-256", "content": digest} for digest in package.hashes]
        component["externalReferences"] = [{"type": "distribution", "url": package.purl, "hashes": hashes}]
    return component
