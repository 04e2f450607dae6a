"""Folders and archives of images, and archives that attack the reader."""

import io
import tarfile
from pathlib import Path

import pytest

from service.scoring.sources import images as image_source
from tests.service.scoring.inputs import images, png, write_folder, write_tar
from tests.service.scoring.sources.conftest import Read

PNG = png(images(1)[0])


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_folder_yields_its_images_sorted_by_name(read: Read, tmp_path: Path) -> None:
    write_folder(tmp_path / "in", images(45))
    (tmp_path / "in" / "notes.md").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_bytes(PNG)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = read(tmp_path / "in", 7)
    assert [values["name"] for _, values, _ in found] == [f"class{i // 20}/{i:05d}.png" for i in range(45)]
    assert [values["image"] for _, values, _ in found] == [png(image) for image in images(45)]


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz", "a.tar.zst"])
def test_archive_yields_its_images_in_order(name: str, read: Read, tmp_path: Path) -> None:
    write_tar(tmp_path / name, images(30))
    found = read(tmp_path / name, 7)
    assert [values["image"] for _, values, _ in found] == [png(image) for image in images(30)]


def test_paths_in_an_archive_are_only_names(read: Read, tmp_path: Path) -> None:
    names = ["../../etc/evil.png", "/etc/evil.png", "a/" * 120 + "long.png", "caf\udce9.png", "caf\udce8.png"]
    path = archive(tmp_path / "a.tar", [(member(name), PNG) for name in names])
    found = read(path, 1)
    assert [values["name"] for _, values, _ in found] == [*names[:3], "caf\\xe9.png", "caf\\xe8.png"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar"]


def test_links_and_devices_in_an_archive_are_skipped(read: Read, tmp_path: Path) -> None:
    members = [
        (member("link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("hard.png", tarfile.LNKTYPE, "real.png"), b""),
        (member("pipe.png", tarfile.FIFOTYPE), b""),
        (member("folder.png", tarfile.DIRTYPE), b""),
        (member("real.png"), PNG),
        (member("readme.txt"), b"hello"),
    ]
    assert [values["name"] for _, values, _ in read(archive(tmp_path / "a.tar", members))] == ["real.png"]


@pytest.mark.parametrize("size", [100, 700, 2000])
def test_truncated_archive_is_an_error(size: int, read: Read, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", images(4))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:size])
    with pytest.raises((tarfile.TarError, EOFError)):
        read(tmp_path / "a.tar")


def test_file_above_the_size_limit_is_a_fault(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_source, "MAX_ROW_BYTES", 1000)
    path = archive(tmp_path / "a.tar", [(member("huge.png"), bytes(5000)), (member("fine.png"), PNG)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(bytes(5000))
    for source, count in ((path, 2), (tmp_path / "in", 1)):
        found = read(source, 1)
        assert len(found) == count
        assert "expected an image of at most" in str(found[0][2])
