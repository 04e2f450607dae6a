"""A scan of the folder of bundles notices every change."""

import os
from pathlib import Path

import pytest

from service.engine.repository.scan import CANDIDATE, allows_tf32, model_names, place_of, scan_model
from tests.service.bundles import write_bundle


def test_model_names_separates_valid_from_invalid_names(tmp_path: Path) -> None:
    for name in ("b-2", "a", "m" * 64, ".draft", "lost+found", "Mine", "m" * 65):
        (tmp_path / name).mkdir()
    (tmp_path / "README").write_text("")
    assert model_names(tmp_path) == (["a", "b-2", "m" * 64], ["Mine", "lost+found", "m" * 65])
    with pytest.raises(FileNotFoundError):
        model_names(tmp_path / "nowhere")


def test_a_file_candidate_names_a_second_version(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    name = folder.parent.name
    assert model_names(tmp_path) == ([name], [])
    (folder.parent / "candidate").write_text("0123456789ab")
    assert model_names(tmp_path) == ([name, f"{name}{CANDIDATE}"], [])
    assert scan_model(*place_of(tmp_path, name)).version == folder.name
    assert scan_model(*place_of(tmp_path, f"{name}{CANDIDATE}")).version == "0123456789ab"


def test_scans_of_unchanged_files_are_equal(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    found = scan_model(folder.parent)
    assert (found.version, found.problem) == (folder.name, None)
    assert scan_model(folder.parent) == found


def test_a_data_file_counts_as_mapped(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    before = scan_model(folder.parent)
    (folder / "model.onnx.data").write_bytes(b"1" * 5000)
    found = scan_model(folder.parent)
    assert (found.num_bytes, found.mapped_bytes) == (before.num_bytes, 5000)
    assert before.mapped_bytes == 0


def test_every_change_alters_the_fingerprint(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    fingerprints = [scan_model(folder.parent).fingerprint]

    def changed() -> bool:
        fingerprints.append(scan_model(folder.parent).fingerprint)
        return fingerprints[-1] not in fingerprints[:-1]

    (folder / "model.onnx").write_bytes(b"shorter")
    assert changed()
    os.utime(folder / "manifest.json", ns=(1, 1))
    assert changed()
    (folder / "manifest.json").chmod(0o600)
    assert changed(), "a file that could not be read may be readable now"
    status = (folder / "model.onnx").stat()
    (folder / "model.onnx").write_bytes(b"another")
    os.utime(folder / "model.onnx", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed(), "a file of the same size may pretend to be of the same time"
    (folder / "requests.jsonl").unlink()
    assert changed()
    copy = folder.parent / "copy"
    copy.write_text(folder.name + "\n")
    copy.replace(folder.parent / "current")
    assert changed()
    (folder.parent / "current").unlink()
    assert changed()


def test_current_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "current").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("0123456789ab")
    before = scan_model(tmp_path / "m")
    (tmp_path / "new").write_text("ba9876543210")
    (tmp_path / "new").replace(tmp_path / "elsewhere")
    after = scan_model(tmp_path / "m")
    assert (before.version, after.version) == ("0123456789ab", "ba9876543210")
    assert before.fingerprint != after.fingerprint


def test_a_problem_with_current_is_reported(tmp_path: Path) -> None:
    found = scan_model(tmp_path / "m")
    assert found.version is None
    assert "no file `current`" in str(found.problem)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "current").write_text("0123456789ab")
    assert scan_model(tmp_path / "m").version == "0123456789ab", "a scan does not open the version"


def test_a_folder_allows_tf32_if_all_its_bundles_do(tmp_path: Path) -> None:
    precision = {"kind": "tf32", "parent": f"tiny/{'0' * 12}", "items": 1, "agreement": 1.0}
    assert not allows_tf32(tmp_path / "nowhere")
    assert not allows_tf32(tmp_path)
    first = write_bundle(tmp_path, "image-classifier", name="a-tf32", precision=precision)
    write_bundle(tmp_path, "image-classifier", name="b-tf32", precision=precision)
    assert allows_tf32(tmp_path)
    other = write_bundle(tmp_path, "image-classifier", name="a-tf32", precision={**precision, "kind": "fp16"})
    assert not allows_tf32(tmp_path)
    (first.parent / "current").write_text(first.name)
    assert allows_tf32(tmp_path), "no file names the other version"
    (first.parent / "candidate").write_text(other.name)
    assert not allows_tf32(tmp_path)
    (first.parent / "candidate").write_text("0123456789ab")
    assert not allows_tf32(tmp_path), "it cannot be read"
