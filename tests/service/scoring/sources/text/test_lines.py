"""JSON Lines and text files, valid and invalid."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.scoring.sources.conftest import Read, read_all


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)), max_size=20), size=st.integers(1, 9))
def test_json_objects_round_trip(
    rows: list[dict[str, str]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [{key: text.encode("utf-8", "replace").decode() for key, text in row.items()} for row in rows]
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    assert [values for _, values, _ in read_all(path, size)] == [{key: row.get(key) for key in columns} for row in rows]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"[1]", "expected a JSON object, got b'[1]'"),
        (b"null", "expected a JSON object"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_bad_line_is_one_fault_with_its_line_number(line: bytes, reason: str, read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, bad, last = read(path, 2)
    assert (first[1]["a"], last[1]["a"]) == (1, 3)
    assert (bad[0], bad[1]["a"]) == (1, None)
    assert str(bad[2]).startswith(reason)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.txt", bytes),
        ("a.txt.gz", gzip.compress),
        ("a.txt.zst", lambda c: pa.compress(c, codec="zstd", asbytes=True)),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_each_line_is_a_row_unless_it_is_blank(name: str, pack, end: bytes, read: Read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / name
    path.write_bytes(pack(b"\xef\xbb\xbfone\r\n\n  \ntw\xc3\xb6\xe2\x80\xa8and\x0bso\nbad \xff" + end))
    found = read(path, 2)
    assert [(number, values["text"]) for number, values, _ in found] == [
        (0, "one"),
        (3, "twö\u2028and\x0bso"),
        (4, None),
    ]
    assert found[-1][2] == "not UTF-8: byte 0xff at 4"


def test_concatenated_gzip_files_are_one_text(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert [values["text"] for _, values, _ in read(path, 1)] == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_file_without_rows_yields_nothing(content: bytes, read: Read, tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == []
