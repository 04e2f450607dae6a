import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from training.data.source import Source


def make_tar(path: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_folder_and_its_archives_have_the_same_contents(tmp_path: Path) -> None:
    contents = {"set/a.txt": b"one", "set/deep/b.txt": b"two"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    make_tar(tmp_path / "set.tar.gz", contents)
    make_tar(tmp_path / "set.tar.xz", contents)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    for name in ("set", "set.tar.gz", "set.tar.xz", "set.zip"):
        source = Source(tmp_path / name)
        assert [source.read(source.require(file_name)) for file_name in ("a.txt", "b.txt")] == [b"one", b"two"], name


def test_a_source_is_named_after_its_folder_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    assert Source(folder).name == "fashion-mnist"
    make_tar(tmp_path / "shapes-2.tar.xz", {})
    assert Source(tmp_path / "shapes-2.tar.xz").name == "shapes-2"
    (tmp_path / "input.txt.gz").write_bytes(gzip.compress(b"content"))
    assert Source(tmp_path / "input.txt.gz").name == "input.txt"


def test_gzip_is_decompressed_and_read_files_are_hashed(tmp_path: Path) -> None:
    compressed = gzip.compress(b"content")
    (tmp_path / "a.txt.gz").write_bytes(compressed)
    source = Source(tmp_path)
    assert source.sha256 == {}
    assert source.read_text(source.require("a.txt")) == "content"
    assert source.sha256 == {"a.txt.gz": hashlib.sha256(compressed).hexdigest()}


def test_single_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("line")
    source = Source(tmp_path / "poem.txt")
    assert source.names == ["poem.txt"]
    assert source.read_text("poem.txt") == "line"


def test_archive_is_not_unpacked_to_disk(tmp_path: Path) -> None:
    make_tar(tmp_path / "evil.tar.gz", {"../escaped.txt": b"x"})
    Source(tmp_path / "evil.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar.gz"]
    assert not (tmp_path.parent / "escaped.txt").exists()


@pytest.mark.parametrize("name", ["broken.tar.gz", "broken.tar.xz", "broken.zip"])
def test_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8bnot an archive at all")
    with pytest.raises(ValueError, match=rf"{name}: truncated or damaged archive"):
        Source(tmp_path / name)


def test_messages_name_file_line_and_contents(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: expected a folder or a file, found nothing"):
        Source(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_bytes(b"good\nbad \xff\n")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"long enough to be cut")[:-9])
    source = Source(tmp_path)
    with pytest.raises(ValueError, match=r"expected c\.txt \(or the same with \.gz\), found a\.txt, b$"):
        source.require("c.txt")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: expected UTF-8"):
        source.read_text("a.txt")
    with pytest.raises(ValueError, match="b: truncated or damaged gzip file"):
        source.read("b")
