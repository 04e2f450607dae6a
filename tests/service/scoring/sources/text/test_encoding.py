"""Encodings of text: marked, said or refused."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from service.scoring.input.files import list_files
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.text.encoding import SAMPLE_BYTES, read_sample, text_encoding
from tests.service.scoring.sources.conftest import Read


def sample_of(path: Path, **options: Any) -> bytes:
    [file] = list_files([str(path)], output=Path("/nowhere"), input_format=None)
    return read_sample(file, TextOptions(**options)).content


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_say_the_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("grün\n".encode(encoding))
    assert sample_of(tmp_path / "a.csv") == "grün\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\ngrün,x\ngelb,ö\n".encode("cp1252"), "lines 2 and 3 are not UTF-8, nor is any other: say --encoding"),
        ("a,b\nc,d\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        ("a,b\nc,d\n".encode("utf-16-be"), "looks like UTF-16 without a byte order mark"),
        (b"a,b\rc,d\r", "its lines end with CR alone"),
    ],
)
def test_other_encodings_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScoringError, match=message):
            sample_of(tmp_path / name)


def test_one_bad_line_is_no_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\nc\xe9,d\n" + "grün,x\n".encode())
    assert b"c\xe9" in sample_of(tmp_path / "a.csv")


def test_sample_ends_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"0123456789\n" * SAMPLE_BYTES)
    assert sample_of(tmp_path / "a.csv").endswith(b"9\n")


def test_unknown_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    for name in ("klingon", "hex", "zip"):
        with pytest.raises(ScoringError, match=f"--encoding {name}: no such encoding of text"):
            sample_of(tmp_path / "a.csv", encoding=name)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "shift_jis"])
def test_spans_of_encoded_files_are_read_in_any_order(name: str, encoding: str, read: Read, tmp_path: Path) -> None:
    lines = [f"line {i}" + ("é" if encoding != "shift_jis" else "日本") for i in range(3000)]
    content = "\n".join(lines).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = read(tmp_path / name, 700, encoding=None if encoding == "utf-16" else encoding)
    assert [values["text"] for _, values, _ in found] == lines


def test_bytes_that_the_encoding_lacks_are_faults_of_their_rows(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xe9\nb\x81\nc\n")
    found = read(tmp_path / "a.txt", encoding="cp1252")
    assert [values["text"] for _, values, _ in found] == ["aé", None, "c"]
    assert found[1][2] is not None


def test_utf8_needs_no_decoder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    [file] = list_files([str(tmp_path / "a.txt")], output=Path("/nowhere"), input_format=None)
    assert [text_encoding(file, TextOptions(encoding=name)) for name in (None, "UTF8", "ascii", "latin-1")] == [
        None,
        None,
        None,
        "iso8859-1",
    ]
