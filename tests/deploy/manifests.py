"""The manifests of deploy/kubernetes as data."""

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.serving import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(path.parent.relative_to(KUBERNETES) for path in KUBERNETES.rglob("kustomization.yaml"))
BUILT = [folder for folder in KUSTOMIZATIONS if folder.parts[0] != "components"]  # which are parts of these
FILES = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
Resource = dict[str, Any]


def load(path: Path) -> list[Resource]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@functools.cache
def _build(folder: Path) -> str:
    """What `kubectl apply -k` would send; skips without kubectl, which holds kustomize."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path) -> list[Resource]:
    return list(yaml.safe_load_all(_build(folder)))


def one(resources: list[Resource], kind: str) -> Resource:
    [resource] = [resource for resource in resources if resource["kind"] == kind]
    return resource


def pod_templates(value: Any) -> Iterator[Resource]:
    """Every pod specification in a resource, wherever it stands."""
    if isinstance(value, Mapping):
        if "containers" in value:
            yield dict(value)
        for member in value.values():
            yield from pod_templates(member)
    elif isinstance(value, list):
        for member in value:
            yield from pod_templates(member)
