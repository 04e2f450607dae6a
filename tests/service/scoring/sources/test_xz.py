"""xz files, whole and broken."""

import io
import lzma
import random

import pytest

from service.scoring.sources import xz
from service.scoring.sources.xz import XzStream


def read_all(compressed: bytes, size: int) -> bytes:
    stream, parts = XzStream(io.BytesIO(compressed)), []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize("count", [0, 1, 200_000])
def test_streams_are_decompressed(size: int, count: int) -> None:
    if count > 1 and size == 1:
        count = 5000
    content = random.Random(0).randbytes(count)
    assert read_all(lzma.compress(content), size) == content


@pytest.mark.parametrize("padding", [b"", bytes(4), bytes(8)])
def test_several_streams_are_one_file(padding: bytes) -> None:
    one, two = lzma.compress(b"one"), lzma.compress(b"two" * 40_000)
    assert read_all(one + padding + two + padding, 777) == b"one" + b"two" * 40_000


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_file_that_is_cut_off_is_an_error(cut: int) -> None:
    compressed = lzma.compress(random.Random(0).randbytes(5000))
    with pytest.raises(EOFError, match="too early"):
        read_all(compressed[:-cut], 999)


@pytest.mark.parametrize("content", [b"no xz", lzma.compress(b"a") + b"rest", b""])
def test_a_broken_file_is_an_error(content: bytes) -> None:
    with pytest.raises((OSError, EOFError)):
        read_all(content, 999)


def test_a_flipped_byte_is_an_error() -> None:
    compressed = bytearray(lzma.compress(random.Random(0).randbytes(5000)))
    compressed[2000] ^= 1
    with pytest.raises(OSError, match="not a valid xz file"):
        read_all(bytes(compressed), 999)


def test_a_decoder_that_needs_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = lzma.compress(b"a" * 100, preset=9)
    assert read_all(compressed, 100) == b"a" * 100
    monkeypatch.setattr(xz, "MAX_MEMORY_BYTES", 1 << 20)
    with pytest.raises(OSError, match=r"[Mm]emory"):
        read_all(compressed, 100)
