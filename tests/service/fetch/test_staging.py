"""What is staged appears among the bundles whole, or not at all."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from service.bundle import open_bundle
from service.fetch.source import FetchError, Pointer, Source
from service.fetch.staging import Staging, write_checked
from service.manifest import MANIFEST
from tests.service.bundles import write_bundle

SOURCE = Source(place="place", digest="0" * 64, pointer="current")
SHA256 = hashlib.sha256(b"content").hexdigest()


def copy_into(staging: Staging, folder: Path) -> Path:
    return Path(shutil.copytree(folder, staging.folder / "new"))


def test_a_checked_bundle_is_placed_and_named(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    with Staging(tmp_path / "to") as staging:
        assert staging.add(SOURCE, copy_into(staging, folder)) == (folder.parent.name, folder.name)
        assert not (tmp_path / "to" / folder.parent.name).exists()
        staging.place_all()
    place = tmp_path / "to" / folder.parent.name
    assert (place / "current").read_text() == f"{folder.name}\n"
    open_bundle(place / folder.name)
    assert [path.name for path in (tmp_path / "to").iterdir()] == [folder.parent.name]
    assert place.stat().st_mode & 0o755 == 0o755
    assert (place / folder.name).stat().st_mode & 0o755 == 0o755


def test_a_bundle_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    (folder / "model.onnx").write_bytes(b"x")
    message = r"^place: tiny-images/.*: model.onnx has 1 bytes"
    with pytest.raises(FetchError, match=message), Staging(tmp_path / "to") as staging:
        staging.add(SOURCE, copy_into(staging, folder))
    assert list((tmp_path / "to").iterdir()) == []


def test_what_is_there_already_is_checked(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    name, version = folder.parent.name, folder.name
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    with Staging(tmp_path) as staging:
        source = replace(SOURCE, digest=digest)
        assert not staging.holds(source, name, "0" * 12)
        assert staging.holds(source, name, version)
        (folder.parent / "current").write_text("0" * 12)
        staging.place_all()
        assert (folder.parent / "current").read_text() == f"{version}\n"
        with pytest.raises(FetchError, match=f"expected sha256 {'0' * 64}, found {digest}"):
            staging.holds(SOURCE, name, version)
        (folder / "model.onnx").unlink()
        with pytest.raises(FetchError, match=r"is there and fails \(.*model.onnx.*\): remove it, then fetch again"):
            staging.holds(source, name, version)


@pytest.mark.parametrize("pointer", ["candidate", "current"])
def test_a_version_is_not_its_own_candidate(pointer: Pointer, tmp_path: Path) -> None:
    """Placed a second time as a candidate, or as the version that serves from now on."""
    folder = write_bundle(tmp_path, "image-classifier")
    (folder.parent / "candidate").write_text(folder.name)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    with Staging(tmp_path) as staging:
        assert staging.holds(Source(place="place", digest=digest, pointer=pointer), folder.parent.name, folder.name)
        staging.place_all()
    assert (folder.parent / "current").read_text().strip() == folder.name
    assert not (folder.parent / "candidate").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FetchError, match="file: File exists: name a folder that can be written"),
        Staging(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize(
    ("parts", "num_bytes", "message"),
    [
        ([b"cont", b"ent"], 7, None),
        ([b"content"], None, None),
        ([b"cont"], 7, "f: expected 7 bytes, found 4"),
        ([b"content", b"!"], 7, "f: expected 7 bytes, found more"),
        ([b"Content"], 7, f"f: expected sha256 {SHA256}, found "),
    ],
)
def test_a_file_has_the_size_and_hash_that_are_expected(
    parts: list[bytes], num_bytes: int | None, message: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "f"
    if message is None:
        write_checked(path, parts, label="f", digest=SHA256, num_bytes=num_bytes)
        assert path.read_bytes() == b"content"
    else:
        with pytest.raises(FetchError, match=message):
            write_checked(path, parts, label="f", digest=SHA256, num_bytes=num_bytes)
