"""The bundle that a job names is found and verified."""

import shutil
from pathlib import Path

import pytest

from service.errors import BundleError
from service.scoring.job import ScoringError
from service.scoring.model import load_bundle, read_manifest, resolve_version


def test_name_resolves_to_its_current_version(served_bundles: Path) -> None:
    version = (served_bundles / "tiny-texts" / "current").read_text().strip()
    assert resolve_version("tiny-texts", served_bundles) == ("tiny-texts", version)
    assert resolve_version(f"tiny-texts@{version}", served_bundles) == ("tiny-texts", version)
    assert resolve_version(f"tiny-texts@{version[:4]}", served_bundles) == ("tiny-texts", version)
    assert read_manifest(served_bundles, "tiny-texts", version).version == version


@pytest.mark.parametrize("name", ["nothing", "", "@abc"])
def test_unknown_name_error_lists_the_bundles(name: str, served_bundles: Path) -> None:
    with pytest.raises(ScoringError, match="available: tiny-images, tiny-letters"):
        resolve_version(name, served_bundles)


def test_corrupt_bundle_is_refused(served_bundles: Path, tmp_path: Path) -> None:
    name, version = resolve_version("tiny-texts", served_bundles)
    shutil.copytree(served_bundles / name, tmp_path / name)
    content = bytearray((tmp_path / name / version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name / version / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(tmp_path / name / version, "cpu")
    with pytest.raises(ScoringError, match="sha256"):
        read_manifest(tmp_path, name, version)
