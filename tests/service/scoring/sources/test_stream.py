"""Seeking in plain and compressed files, blocks of lines, and truncated files."""

import gzip
from pathlib import Path

import pytest

from service.scoring.input.files import list_files
from service.scoring.sources import stream
from service.scoring.sources.stream import Stream, blocks, line_spans

CONTENT = bytes(range(256)) * 40


def open_stream(path: Path) -> Stream:
    [file] = list_files([str(path)], output=Path("/nowhere"), input_format="text")
    return Stream(file)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_seek_reaches_any_position_in_any_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT) if name.endswith("gz") else CONTENT)
    reader = open_stream(path)
    for position in (5000, 100, 100, 9000, 0, 10239):
        reader.seek(position)
        assert reader.read(300) == CONTENT[position : position + 300]
        assert reader.position == min(position + 300, len(CONTENT))
    reader.close()


@pytest.mark.parametrize("cut", [1, 30, 600])
def test_truncated_gzip_is_an_error(cut: int, tmp_path: Path) -> None:
    import random

    content = random.Random(0).randbytes(3000)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(content)[:-cut])
    with pytest.raises(OSError, match=r"[Tt]runcated|ended"):
        list(line_spans(open_stream(path), shard_rows=2))


def test_corrupt_gzip_is_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(CONTENT))
    content[len(content) // 2] ^= 16
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(OSError, match="zlib"):
        list(line_spans(open_stream(tmp_path / "a.txt.gz"), shard_rows=2))


def test_seeking_past_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"short"))
    reader = open_stream(path)
    with pytest.raises(EOFError, match="ends at byte 5, expected at least 10"):
        reader.seek(10)
    reader.close()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_hold_whole_lines(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", size)
    content = b"a\nbb\n\nccc\nlast"
    (tmp_path / "a.txt").write_bytes(content)
    found = list(blocks(open_stream(tmp_path / "a.txt")))
    assert b"".join(block.content for block in found) == content
    assert all(block.content.endswith(b"\n") for block in found[:-1])
    assert sum(block.size for block in found) == len(content)


def test_line_above_the_size_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", 8)
    monkeypatch.setattr(stream, "MAX_ROW_BYTES", 20)
    content = b"ok\n" + b"x" * 100 + b"\nfine\n"
    (tmp_path / "a.txt").write_bytes(content)
    found = list(blocks(open_stream(tmp_path / "a.txt")))
    assert b"".join(block.content for block in found) == b"ok\nfine\n"
    assert sum(block.size for block in found) == len(content)
    spans = list(line_spans(open_stream(tmp_path / "a.txt"), shard_rows=1))
    assert [(span.start, span.stop) for span in spans] == [(0, 3), (3, 104), (104, 109)]


def test_long_rows_make_small_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", 64)
    monkeypatch.setattr(stream, "SHARD_BYTES", 128)
    (tmp_path / "a.txt").write_bytes(b"x" * 31 + b"\n" + (b"x" * 31 + b"\n") * 20)
    spans = list(line_spans(open_stream(tmp_path / "a.txt"), shard_rows=1000))
    assert sum(span.rows for span in spans) == 21
    assert max(span.stop - span.start for span in spans) <= 192
