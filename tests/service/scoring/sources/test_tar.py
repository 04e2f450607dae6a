"""Archives that are damaged, cut off or joined: every member is read, or the archive is refused."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tests.service.scoring.inputs import images, png
from tests.service.scoring.sources.conftest import Read

PNG = png(images(1)[0])


def archive(*names: str, end: bool = True) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            tar.addfile(member, io.BytesIO(PNG))
        size = tar.offset
    return content.getvalue() if end else content.getvalue()[:size]


def key(values: dict[str, object]) -> object:
    return values["name"] if "name" in values else f"{values['key']}.png"


@pytest.mark.parametrize("input_format", ["tar", "webdataset"])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_joined_archives_are_one(name: str, input_format: str, read: Read, tmp_path: Path) -> None:
    content = archive("a.png", "b.png") + archive() + archive("c.png", "d.png")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for shard_rows in (1, 3, 7):
        found = read(tmp_path / name, shard_rows, input_format=input_format)
        assert [key(values) for _, values, _ in found] == ["a.png", "b.png", "c.png", "d.png"]
        assert all(values["image"] == PNG for _, values, _ in found)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


NEXT = 512 + -(-len(PNG) // 512) * 512  # where the second member begins


@pytest.mark.parametrize("input_format", ["tar", "webdataset"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive("a.png", "b.png", end=False), "cut off"),
        (archive("a.png", "b.png")[:NEXT], "cut off"),
        (archive("a.png", "b.png")[: NEXT + 100], "damaged: truncated header"),
        (b"", "cut off"),
        (flipped(archive("a.png", "b.png", "c.png"), NEXT + 3), "damaged: bad checksum"),
        (flipped(archive("a.png"), 3), "damaged: bad checksum"),
        (archive("a.png") + b"further bytes" * 100, "damaged: invalid header"),
    ],
)
def test_a_damaged_archive_is_an_error(
    content: bytes, message: str, input_format: str, read: Read, tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(tarfile.ReadError, match=f"the archive is {message}"):
        read(tmp_path / "a.tar", input_format=input_format)


def test_an_archive_may_be_empty(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive())
    assert read(tmp_path / "a.tar") == []
