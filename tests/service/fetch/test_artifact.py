"""Bundles come out of artifacts of files and of archives, and nothing else does."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.bundle import open_bundle
from service.fetch.artifact import fetch_artifact
from service.fetch.source import FetchError, parse_source
from service.fetch.staging import Staging
from tests.service.bundles import write_bundle
from tests.service.engine.versions import FAMILY, NAME, differing_graph, set_current
from tests.service.fetch.registry_server import Registry, digest_of, registry_server
from tests.service.poisoned import write_whole_bundle


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


def fetch(registry: Registry, digest: str, root: Path) -> list[str]:
    with Staging(root) as staging:
        lines = fetch_artifact(parse_source(registry.place(digest)), staging)
        staging.place_all()
    return lines


def archive(folder: Path, name: str, *, mode: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore[call-overload]  # mode is no literal
        tar.add(folder, name)
    return content.getvalue()


def one_member(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    content, member = io.BytesIO(), tarfile.TarInfo("x")
    change(member)
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return content.getvalue()


def test_an_artifact_of_files_is_one_bundle(registry: Registry, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    digest = registry.push_folder(folder)
    [line] = fetch(registry, digest, tmp_path / "to")
    assert line.startswith(f"{folder.parent.name} {folder.name}: from oci://127.0.0.1:")
    open_bundle(tmp_path / "to" / folder.parent.name / folder.name)
    fetch(registry, digest, tmp_path / "to")


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_image_may_hold_several_bundles(mode: str, registry: Registry, tmp_path: Path) -> None:
    folders = [write_bundle(tmp_path / "from", family) for family in ("image-classifier", "series-classifier")]
    layers = [(None, archive(folder, f"bundles/{folder.parent.name}/{folder.name}", mode=mode)) for folder in folders]
    lines = fetch(registry, registry.push(layers), tmp_path / "to")
    assert len(lines) == 2
    for folder in folders:
        open_bundle(tmp_path / "to" / folder.parent.name / folder.name)


def test_a_layer_replaces_the_files_of_earlier_ones(registry: Registry, tmp_path: Path) -> None:
    """An image that was made from an older one, with a newer version."""
    older, newer, _ = write_versions(tmp_path)
    bundles, layers = tmp_path / "bundles", []
    for version in (older, newer):
        set_current(bundles, version)
        layers.append((None, archive(bundles, "bundles")))
    assert len(fetch(registry, registry.push(layers), tmp_path / "to")) == 1
    assert (tmp_path / "to" / NAME / "current").read_text() == f"{newer}\n"


def write_versions(root: Path) -> list[str]:
    """Write three versions of one model; return them in order."""
    graphs = (None, differing_graph(16), differing_graph(64))
    return sorted(write_whole_bundle(root, FAMILY, NAME, model=graph).name for graph in graphs)


@pytest.mark.parametrize("current", range(3))
def test_an_image_says_which_of_its_versions_serves(current: int, registry: Registry, tmp_path: Path) -> None:
    """Whatever the order of their names: an older one after an undone upgrade, and one more as the candidate."""
    versions = write_versions(tmp_path)
    model = tmp_path / "bundles" / NAME
    serving, candidate = versions[current], versions[current - 1]
    (model / "current").write_text(f"{serving}\n")
    (model / "candidate").write_text(f"{candidate}\n")
    digest = registry.push([(None, archive(model.parent, "bundles"))])
    assert len(fetch(registry, digest, tmp_path / "to")) == 2
    placed = tmp_path / "to" / NAME
    assert {path.name for path in placed.iterdir()} == {"current", "candidate", serving, candidate}
    assert [(placed / name).read_text().strip() for name in ("current", "candidate")] == [serving, candidate]
    (model / "candidate").unlink()
    set_current(tmp_path / "to", candidate)
    source = parse_source(registry.place(registry.push([(None, archive(model.parent, "bundles"))])), "candidate")
    with Staging(tmp_path / "to") as staging:
        fetch_artifact(source, staging)
        staging.place_all()
    assert [(placed / name).read_text().strip() for name in ("current", "candidate")] == [candidate, serving]


def test_an_image_that_does_not_say_which_version_serves_is_refused(registry: Registry, tmp_path: Path) -> None:
    first, second, _ = write_versions(tmp_path)
    current = tmp_path / "bundles" / NAME / "current"
    current.unlink()

    def push() -> str:
        return registry.push([(None, archive(tmp_path / "bundles", "bundles"))])

    with pytest.raises(FetchError, match=f"has two versions to serve, {first} of oci://.* and {second} of oci://.*: "):
        fetch(registry, push(), tmp_path / "to")
    current.write_text("0" * 12)
    with pytest.raises(FetchError, match=f"{NAME}: `current` names 000000000000, which is not there"):
        fetch(registry, push(), tmp_path / "to")
    current.write_text("latest")
    with pytest.raises(FetchError, match="`current` holds 'latest', expected a version of 12 hex digits"):
        fetch(registry, push(), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_flipped_byte_is_named_and_escapes_nothing(registry: Registry, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    digest = registry.push_folder(folder)
    blob = digest_of((folder / "model.onnx").read_bytes())
    content = bytearray(registry.blobs[blob])
    content[7] ^= 1
    registry.blobs[blob] = bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(FetchError, match=f"model.onnx: expected sha256 {blob[7:]}, found {found}"):
        fetch(registry, digest, tmp_path / "to")
    registry.manifests[digest] += b" "
    with pytest.raises(FetchError, match=f"its manifest: expected sha256 {digest[7:]}, found "):
        fetch(registry, digest, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    ("layers", "fields", "message"),
    [
        ([], {}, "expected 1 to 256 layers, found 0"),
        ([("x", b"1")], {}, r"the artifact holds no manifest\.json, so no bundle"),
        (
            [("manifest.json", b'{"format_version": 3}')],
            {},
            r"manifest\.json is no manifest .*: field 'format_version': Input should be 1 or 2$",
        ),
        ([("../x", b"1")], {}, r"the path '../x' leads out of the folder"),
        ([("/x", b"1")], {}, r"the path '/x' leads out of the folder"),
        ([("bundle/", b"1")], {}, "bundle/: a folder is pushed as an archive"),
        ([(None, b"1")], {}, "layer 0: is neither a file with a title nor a tar archive"),
        ([("x", b"1")], {"manifests": []}, "is an index: name the digest of one of its manifests"),
        ([("x", b"1")], {"layers": [{}]}, "its manifest is none of an OCI image or artifact"),
    ],
)
def test_what_holds_no_bundle_is_refused(
    layers: list[tuple[str | None, bytes]],
    fields: dict[str, object],
    message: str,
    registry: Registry,
    tmp_path: Path,
) -> None:
    with pytest.raises(FetchError, match=message):
        fetch(registry, registry.push(layers, **json.loads(json.dumps(fields))), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def _escape(member: tarfile.TarInfo) -> None:
    member.name = "a/../../x"


def _link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


def _whiteout(member: tarfile.TarInfo) -> None:
    member.name = "bundles/x/.wh.candidate"


def _device(member: tarfile.TarInfo) -> None:
    member.type = tarfile.CHRTYPE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_escape, "leads out of the folder"),
        (_link, "x is no plain file"),
        (_device, "x is no plain file"),
        (_whiteout, r"bundles/x/.wh.candidate removes what an earlier layer holds: build the image anew"),
    ],
)
def test_an_archive_writes_plain_files_in_its_folder_only(
    change: Callable[[tarfile.TarInfo], None], message: str, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match=message):
        fetch(registry, registry.push([(None, one_member(change))]), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []
