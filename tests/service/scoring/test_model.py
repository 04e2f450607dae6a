"""The bundle that a job names."""

import shutil
from pathlib import Path

import pytest

from service.errors import BundleError
from service.scoring.job import ScoringError
from service.scoring.model import load_bundle, read_manifest, resolve


def test_a_name_is_its_current_version(served_bundles: Path) -> None:
    version = (served_bundles / "tiny-texts" / "current").read_text().strip()
    assert resolve("tiny-texts", served_bundles) == ("tiny-texts", version)
    assert resolve(f"tiny-texts@{version}", served_bundles) == ("tiny-texts", version)
    assert resolve(f"tiny-texts@{version[:4]}", served_bundles) == ("tiny-texts", version)
    assert read_manifest(served_bundles, "tiny-texts", version).version == version


@pytest.mark.parametrize("name", ["nothing", "", "@abc"])
def test_an_unknown_name_lists_those_that_are_there(name: str, served_bundles: Path) -> None:
    with pytest.raises(ScoringError, match="there are: tiny-images, tiny-letters"):
        resolve(name, served_bundles)


def test_a_bundle_with_a_flipped_bit_scores_nothing(served_bundles: Path, tmp_path: Path) -> None:
    name, version = resolve("tiny-texts", served_bundles)
    shutil.copytree(served_bundles / name, tmp_path / name)
    content = bytearray((tmp_path / name / version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name / version / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(tmp_path / name / version, "cpu")
    with pytest.raises(ScoringError, match="sha256"):
        read_manifest(tmp_path, name, version)
