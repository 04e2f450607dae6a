"""The bundle that a job names is found and verified."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from service.bundle import GoldenCase, open_bundle, pack_golden
from service.engine.sessions.session import Session
from service.errors import BundleError
from service.manifest import GOLDEN
from service.scoring.job import ScoringError
from service.scoring.model import load_bundle, read_manifest, resolve_version
from tests.service.bundles import bundle_files, write_bundle


def test_name_resolves_to_its_current_version(served_bundles: Path) -> None:
    version = (served_bundles / "tiny-texts" / "current").read_text().strip()
    assert resolve_version("tiny-texts", served_bundles) == ("tiny-texts", version)
    assert resolve_version(f"tiny-texts@{version}", served_bundles) == ("tiny-texts", version)
    assert resolve_version(f"tiny-texts@{version[:4]}", served_bundles) == ("tiny-texts", version)
    assert read_manifest(served_bundles, "tiny-texts", version).version == version


@pytest.mark.parametrize("name", ["nothing", "", "@abc"])
def test_unknown_name_error_lists_the_bundles(name: str, served_bundles: Path) -> None:
    with pytest.raises(ScoringError, match="available: tiny-chat, tiny-images, tiny-letters"):
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


def test_bundle_with_weak_goldens_is_refused(tmp_path: Path) -> None:
    """A job makes the checks of the service; these goldens are what any weights give for black pictures."""
    bundle = open_bundle(write_bundle(tmp_path / "strong", "image-classifier"))
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    inputs = {"images": np.zeros((4, 4, 4), np.uint8)}
    goldens = pack_golden((GoldenCase(inputs=inputs, outputs=session.run(inputs)),))
    files = {**bundle_files("image-classifier"), GOLDEN: save(goldens)}
    with pytest.raises(BundleError, match="too few, too weak goldens"):
        load_bundle(write_bundle(tmp_path / "weak", "image-classifier", files=files), "cpu")
