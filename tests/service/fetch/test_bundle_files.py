"""A bundle is fetched file by file from folders, servers and object storage, and a flipped byte is named."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

import pytest

from export.sign import main as sign
from service.bundle import open_bundle
from service.fetch.bundle_files import fetch_files
from service.fetch.source import FetchError, parse_source
from service.fetch.staging import Staging
from service.manifest import MANIFEST
from service.signature import SIGNATURE, TRUSTED_KEYS
from tests.service.bundles import write_bundle
from tests.service.fetch.test_stores import file_server
from tests.service.scoring.object_server import Kind, ObjectServer

Place = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(params=["folder", "http", *get_args(Kind)])
def place(request: pytest.FixtureRequest, object_servers: Callable[[Kind], ObjectServer]) -> Place:
    """Put the folder of a bundle where a store of each kind reads it."""
    if request.param == "folder":
        return lambda folder: contextlib.nullcontext(str(folder))
    if request.param == "http":
        return file_server
    server = object_servers(request.param)
    server.empty()

    @contextlib.contextmanager
    def upload(folder: Path) -> Iterator[str]:
        server.upload(folder, "models/tiny")
        yield server.uri("models/tiny")

    return upload


def digest_of(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def fetch(place: str, digest: str, root: Path) -> list[str]:
    with Staging(root) as staging:
        lines = fetch_files(parse_source(f"{place}@sha256:{digest}"), staging)
        staging.place_all()
    return lines


def test_a_bundle_is_fetched_whole_and_only_once(place: Place, tmp_path: Path) -> None:
    folder, root = write_bundle(tmp_path / "from", "text-classifier"), tmp_path / "to"
    with place(folder) as source:
        [line] = fetch(source, digest_of(folder), root)
        assert line.startswith(f"{folder.parent.name} {folder.name}: ")
        assert "secret" not in line
        [again] = fetch(source, digest_of(folder), root)
    assert again == f"{folder.parent.name} {folder.name}: is there already, and whole"
    open_bundle(root / folder.parent.name / folder.name)


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors", MANIFEST])
def test_a_flipped_byte_is_named_and_leaves_nothing(name: str, place: Place, tmp_path: Path) -> None:
    folder, root = write_bundle(tmp_path / "from", "image-classifier"), tmp_path / "to"
    digest, content = digest_of(folder), bytearray((folder / name).read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with place(folder) as source, pytest.raises(FetchError, match=f"{name}: expected sha256 {expected}, found {found}"):
        fetch(source, digest, root)
    assert list(root.iterdir()) == []


def test_a_missing_file_is_named(place: Place, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    digest = digest_of(folder)
    (folder / "model.onnx").unlink()
    with place(folder) as source, pytest.raises(FetchError, match=r"model.onnx: there is no such file$"):
        fetch(source, digest, tmp_path / "to")
    (folder / MANIFEST).unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FetchError, match=r"there is no manifest\.json: name the folder of one version of a bundle"):
        fetch(str(empty), digest, tmp_path / "to")


def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    reads = r"manifest\.json is no manifest that this version of the service reads"
    with pytest.raises(FetchError, match=f"{reads}: field 'name': Field required$"):
        fetch(str(tmp_path), digest_of(tmp_path), tmp_path / "to")
    (tmp_path / MANIFEST).write_bytes(b"x" * (2 << 20))
    with pytest.raises(FetchError, match=r"manifest\.json: expected at most 1048576 bytes, found more"):
        fetch(str(tmp_path), "0" * 64, tmp_path / "to")


def test_a_server_that_may_not_be_listed_gives_a_bundle_without_a_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a server, and S3 without the right to list, refuses what is not there."""
    folder = write_bundle(tmp_path / "denied", "image-classifier")
    with file_server(tmp_path) as url:
        place = f"{url}/{folder.relative_to(tmp_path)}"
        fetch(place, digest_of(folder), tmp_path / "to")
        monkeypatch.setenv(TRUSTED_KEYS, "ab" * 32)
        with pytest.raises(FetchError, match=r"signature.json: the server answers 403$"):
            fetch(place, digest_of(folder), tmp_path / "signed")
    open_bundle(tmp_path / "to" / folder.parent.name / folder.name, require_signature=False)


def test_a_trusted_key_has_to_have_signed_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, root = write_bundle(tmp_path / "from", "image-classifier"), tmp_path / "to"
    sign(["--new-key", str(tmp_path / "key.pem")])
    monkeypatch.setenv(TRUSTED_KEYS, capsys.readouterr().out.split()[-1])
    with pytest.raises(FetchError, match=r"there is no signature.json; sign the bundle"):
        fetch(str(folder), digest_of(folder), root)
    assert list(root.iterdir()) == []
    sign([str(folder), "--key", str(tmp_path / "key.pem")])
    fetch(str(folder), digest_of(folder), root)
    assert (root / folder.parent.name / folder.name / SIGNATURE).exists()
