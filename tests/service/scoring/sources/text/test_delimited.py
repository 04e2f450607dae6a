"""CSV and TSV files, valid and invalid."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.job import ScoringError
from service.scoring.sources.text import delimited
from tests.service.scoring.sources.conftest import Read, read_all, spans_of

HEADER = b"id,text\n"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(max_size=6), st.text('ab",\n ', max_size=8)), max_size=25), size=st.integers(1, 9)
)
def test_csv_texts_round_trip(rows: list[tuple[str, str]], size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [(a.replace("\r", "").replace("\0", "").encode("utf-8", "replace").decode(), b) for a, b in rows]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", buffer.getvalue().encode())
    assert [(values["id"], values["text"]) for _, values, _ in read_all(path, size)] == rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_line_end_inside_quotes_does_not_split_a_record(name: str, read: Read, tmp_path: Path) -> None:
    rows = [f'{i},"line one\nline ""two"" of {i}, with a comma"' for i in range(20)]
    path = write(tmp_path / name, HEADER + "\n".join(rows).encode())
    found = read(path, 3)
    assert [number for number, _, _ in found] == list(range(20))
    assert [values["text"] for _, values, _ in found] == [
        f'line one\nline "two" of {i}, with a comma' for i in range(20)
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "expected 2 fields, got 1"),
        (b"1,2,3", "expected 2 fields, got 3"),
        (b"1,\xff\xfe", "column 'text' is not UTF-8: byte 0xff"),
        (b"1,caf\xe9", "column 'text' is not UTF-8: byte 0xe9"),
        (b"1,a\rb", "not CSV: new-line character seen in unquoted field"),
    ],
)
def test_bad_record_is_one_fault_and_other_records_are_read(
    line: bytes, reason: str, read: Read, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", HEADER + b"0,before\n" + line + b"\n2,after\n")
    before, bad, after = read(path, 2)
    assert (before[1]["text"], after[1]["text"]) == ("before", "after")
    assert bad[2] is not None
    assert bad[2].startswith(reason)


@pytest.mark.parametrize("process_limit", [100, 1 << 22])
def test_field_limit_of_the_process_is_ignored_and_restored(process_limit: int, read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + b"0," + b"x" * 5000 + b"\n1," + b"y" * (2 << 20) + b"\n2,z\n")
    before = csv.field_size_limit(process_limit)
    try:
        long, longer, short = read(path, 2)
        assert csv.field_size_limit() == process_limit
    finally:
        csv.field_size_limit(before)
    assert (long[1]["text"], short[1]["text"]) == ("x" * 5000, "z")
    assert longer[2] == f"not CSV: field larger than field limit ({delimited.MAX_FIELD_CHARS})"


@pytest.fixture
def short_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_FIELD_CHARS", 200)


@pytest.mark.usefixtures("short_fields")
def test_unclosed_quote_swallows_a_bounded_number_of_bytes(read: Read, tmp_path: Path) -> None:
    lines = b"".join(b"%d,some words\n" % i for i in range(100))
    path = write(tmp_path / "a.csv", HEADER + b'0,"never closed\n' + lines)
    found = read(path, 10)
    assert "field larger than field limit (200) (lines 2 to" in str(found[0][2])
    assert [values["id"] for _, values, _ in found][-1] == "99"
    assert len(found) > 80


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n2,lost\n3,lost\n"])
def test_unclosed_quote_at_the_end_of_the_file_is_one_fault(size: int, end: bytes, read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + b'0,"before"\n1,"never closed' + end)
    before, bad = read(path, size)
    assert (before[1]["text"], before[2]) == ("before", None)
    assert "a quote is never closed (lines 3 to" in str(bad[2])


def test_last_line_may_lack_its_line_end(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + b'0,"two\nlines"')
    assert read(path) == [(0, {"id": "0", "text": "two\nlines"}, None)]


def test_quote_inside_an_unquoted_field_is_a_character(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + b'0,5" pipe\n1,plain\n2,"quoted ""x"" "\n')
    assert [values["text"] for _, values, _ in read(path, 1)] == ['5" pipe', "plain", 'quoted "x" ']


def test_crlf_byte_order_mark_and_blank_lines_are_accepted(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfid,text\r\n0,a\r\n\r\n1,b\r\n\r\n")
    assert [(values["id"], values["text"]) for _, values, _ in read(path, 1)] == [("0", "a"), ("1", "b")]


@pytest.mark.parametrize("header", [b"id,text\n", b'"id","text"\r\n'])
def test_header_of_a_joined_file_is_one_fault(header: bytes, read: Read, tmp_path: Path) -> None:
    part = b"\xef\xbb\xbf" + header + b"0,a\n"
    path = write(tmp_path / "a.csv", part + part + b'1,"\xef\xbb\xbfb"\n')
    found = read(path, 1)
    assert [values["text"] for _, values, _ in found] == ["a", None, "a", "\ufeffb"]
    assert [fault for _, _, fault in found] == [None, "repeats the header", None, None]


def test_without_a_header_columns_are_numbered(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"x,y\nz,w\n")
    assert [values for _, values, _ in read(path, header=False)] == [{"0": "x", "1": "y"}, {"0": "z", "1": "w"}]


@pytest.mark.parametrize("content", [b"", b"id,text\n"])
def test_empty_file_has_no_rows(content: bytes, read: Read, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", content)) == []


def test_repeated_column_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"a\.csv: the header names 'a' more than once"):
        spans_of(write(tmp_path / "a.csv", b"a,a\n1,2\n"), 1)


def test_tsv_is_split_at_tabs(read: Read, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.tsv", b"a\tb\n1,5\t2\n"))[0][1] == {"a": "1,5", "b": "2"}


def test_line_above_the_size_limit_is_one_fault(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.scoring.sources import stream

    monkeypatch.setattr(stream, "MAX_ROW_BYTES", 1 << 20)
    path = write(tmp_path / "a.csv", HEADER + b"0,a\n1," + b"x" * (3 << 20) + b"\n2,b\n")
    found = read(path, 1)
    assert [fault is not None for _, _, fault in found] == [False, True, False]
    assert "expected a line of at most" in str(found[1][2])


def test_digest_changes_with_the_bytes_of_the_rows(tmp_path: Path) -> None:
    a = spans_of(write(tmp_path / "a.csv", HEADER + b"0,a\n1,b\n"), 1)
    b = spans_of(write(tmp_path / "b.csv", HEADER + b"0,a\n1,c\n"), 1)
    assert a[0].digest == b[0].digest
    assert a[1].digest != b[1].digest
