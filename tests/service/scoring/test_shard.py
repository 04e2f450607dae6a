"""Bad rows, bad files and bad disks."""

import errno
import json
import os
import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.rows import CHUNK_ROWS
from service.scoring.shard import LOGGED_BYTES, LOGGED_CHARS, LOGGED_REASONS, loggable
from service.scoring.sources.stream import Stream
from tests.service.scoring.conftest import Score, predictions, rejects, tree
from tests.service.scoring.inputs import (
    FIELD,
    arrow_series,
    images,
    items,
    png,
    series,
    texts,
    write_csv,
    write_jsonl,
    write_parquet,
    write_tar,
)

Make = Callable[[str, int], tuple[str, Path]]
EVERY = 100  # one bad row in so many
BAD: dict[str, list[Any]] = {
    "image-classifier": [None, "not base64!", [[1, 2]], [[256] * 4] * 4, [["a"] * 4] * 4, {"x": 1}],
    "text-classifier": [None, "", "the " * 50, 5, ["a"], {"x": 1}],
    "series-classifier": [None, [], [[1]], [[1, "a"]], [[0, 0]] * 50, [[1e300, 0]]],
    "series-tagger": [None, [], [[1]], [[1, None]], [[0, 0]] * 50, [[-1e300, 0]]],
    "language-model": [None, "", "a" * 200, 5, ["a"], {"x": 1}],
    "image-generator": ["x", -1, 1.5, 2**60, [1], {"x": 1}],
}


@pytest.mark.parametrize("family", BAD)
def test_bad_rows_are_kept_aside_and_all_others_scored(family: str, score: Score, tmp_path: Path) -> None:
    count = 600 if family not in {"language-model", "image-generator"} else 60
    every = EVERY if count == 600 else 10
    good = items(family, count)
    mixed = list(good)
    for i, value in enumerate(BAD[family]):
        mixed[i * every + 7] = value
    clean = write_jsonl(tmp_path / "clean.jsonl", {"id": range(count), FIELD[family]: good})
    dirty = write_jsonl(tmp_path / "dirty.jsonl", {"id": range(count), FIELD[family]: mixed})
    score(family, clean, tmp_path / "a", id_column="id", shard_rows=64)
    result = score(family, dirty, tmp_path / "b", id_column="id", shard_rows=64)
    assert result.failures == ()
    places = [i * every + 7 for i in range(len(BAD[family]))]
    found = rejects(tmp_path / "b")
    assert [(row["file"], row["row"], row["line"], row["id"]) for row in found] == [
        ("dirty.jsonl", place, place + 1, place) for place in places
    ]
    assert all(row["reason"] and row["shard"].startswith("00000-") for row in found)
    wanted = [{**row, "file": "dirty.jsonl"} for row in predictions(tmp_path / "a") if row["row"] not in places]
    assert predictions(tmp_path / "b") == wanted


def test_numbers_that_are_none_are_named_in_arrays(score: Score, tmp_path: Path) -> None:
    rows = series(300)
    for i in range(0, 300, 100):
        rows[i][0, 1] = [np.nan, np.inf, -np.inf][i // 100]
    source = write_parquet(tmp_path / "a.parquet", {"series": arrow_series(rows)})
    result = score("series-classifier", source, tmp_path / "out")
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (297, 3)
    assert [row["row"] for row in rejects(tmp_path / "out")] == [0, 100, 200]
    assert all("series/0/1: expected" in row["reason"] for row in rejects(tmp_path / "out"))


def test_broken_texts_in_csv(score: Score, tmp_path: Path) -> None:
    lines = [f"{i},{text}".encode() for i, text in enumerate(texts(200))]
    lines[50], lines[150] = b"50,caf\xe9", b"150"
    (tmp_path / "a.csv").write_bytes(b"id,text\n" + b"\n".join(lines))
    score("text-classifier", tmp_path / "a.csv", tmp_path / "out", id_column="id")
    assert [(row["row"], row["line"], row["reason"]) for row in rejects(tmp_path / "out")] == [
        (50, 52, "column 'text' is not UTF-8: byte 0xe9"),
        (150, 152, "expected 2 fields, got 1"),
    ]


def test_files_that_are_no_pictures(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pictures = images(3)
    contents = {
        "a.png": png(pictures[0]),
        "b.png": b"",
        "c.jpg": b"GIF89a",
        "d.gif": b"GIF89a",
        "e.png": png(pictures[1])[:50],
        "f.png": png(np.zeros((9, 9), np.uint8)),
        "g.png": png(pictures[2]),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    score("image-classifier", folder, tmp_path / "out", id_column="name")
    assert [row["name"] for row in predictions(tmp_path / "out")] == ["a.png", "g.png"]
    assert [row["name"] for row in rejects(tmp_path / "out")] == ["b.png", "c.jpg", "d.gif", "e.png", "f.png"]


def test_nothing_but_bad_rows(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [None] * 40})
    result = score("text-classifier", source, tmp_path / "out")
    assert result.reject_share == 1.0
    assert predictions(tmp_path / "out") == []
    assert len(rejects(tmp_path / "out")) == 40


def test_duplicate_ids_and_null_ids_are_as_they_are(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"id": ["x", "x", None, {"a": 1}], "text": texts(4)})
    score("text-classifier", source, tmp_path / "out", id_column="id")
    assert [row["id"] for row in predictions(tmp_path / "out")] == ["x", "x", None, '{"a":1}']


def test_a_rotten_file_is_named_the_others_are_scored_and_repair_resumes(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write_parquet(folder / f"{name}.parquet", {"text": texts(40, seed=ord(name))}, group=10)
    whole = (folder / "b.parquet").read_bytes()
    rotten = bytearray(whole)
    middle = len(whole) // 3
    rotten[middle : middle + 40] = bytes(40)
    (folder / "b.parquet").write_bytes(rotten)
    result = score("text-classifier", folder, tmp_path / "out", shard_rows=10)
    assert result.summary is None
    assert result.failures
    assert all("b.parquet" in failure for failure in result.failures)
    assert not (tmp_path / "out" / "summary.json").exists()
    done = len(predictions(tmp_path / "out"))
    assert done >= 80
    if any("row" in failure for failure in result.failures):  # a shard that was read badly, not a plan that failed
        assert "shard 00001-" in result.failures[0]
    (folder / "b.parquet").write_bytes(whole)
    for path in (tmp_path / "out" / "_ledger" / "shards").glob("00001-*"):
        path.unlink()  # the plan of the rotten file is not the plan of the whole one
    again = score("text-classifier", folder, tmp_path / "out", shard_rows=10)
    assert again.failures == ()
    score("text-classifier", folder, tmp_path / "fresh", shard_rows=10)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_truncated_gzip_is_named_and_resumed_when_it_is_whole(score: Score, tmp_path: Path) -> None:
    import gzip

    noise = random.Random(0)
    rows = (b"%s,%s\n" % (noise.randbytes(600).hex().encode(), text.encode()) for text in texts(3000))
    content = b"id,text\n" + b"".join(rows)
    source = tmp_path / "a.csv.gz"
    packed = gzip.compress(content)
    source.write_bytes(packed[: len(packed) * 2 // 3])
    result = score("text-classifier", source, tmp_path / "out", shard_rows=100)
    assert result.summary is None
    assert "a.csv.gz: OSError: Truncated compressed stream" in result.failures[0]
    done = len(predictions(tmp_path / "out"))
    assert done >= 100
    source.write_bytes(packed)
    again = score("text-classifier", source, tmp_path / "out", shard_rows=100)
    assert again.failures == ()
    assert again.computed == 3000 - done
    score("text-classifier", source, tmp_path / "fresh", shard_rows=100)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("failing", range(3, 12))
def test_a_read_error_is_named_shows_nothing_half_written_and_is_resumed(
    failing: int, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the disk, at any of the reads: of the plan or of a shard."""
    source = write_csv(tmp_path / "a.csv", {"text": texts(200)})
    score("text-classifier", source, tmp_path / "fresh", shard_rows=40)
    reads = iter(range(1, 10**6))

    def read(stream: Stream, size: int, whole: Any = Stream.read) -> bytes:
        if next(reads) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "a.csv")
        content: bytes = whole(stream, size)
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "read", read)
        result = score("text-classifier", source, tmp_path / "out", shard_rows=40)
    assert result.summary is None
    assert "a.csv" in result.failures[0]
    assert "Input/output error" in result.failures[0]
    wanted = tree(tmp_path / "fresh")
    shown = {name: content for name, content in tree(tmp_path / "out").items() if name.startswith("predictions")}
    assert shown.items() <= wanted.items()
    again = score("text-classifier", source, tmp_path / "out", shard_rows=40)
    assert again.failures == ()
    assert tree(tmp_path / "out") == wanted


def test_a_file_that_changes_meanwhile_is_noticed(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.scoring import shard

    source = write_csv(tmp_path / "a.csv", {"text": texts(10)})
    monkeypatch.setattr(shard, "current_stamp", lambda file: "another")
    result = score("text-classifier", source, tmp_path / "out")
    assert "the file was changed while it was being scored" in result.failures[0]
    assert predictions(tmp_path / "out") == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB: what a full disk is to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_a_full_disk_is_named_shows_nothing_half_written_and_is_resumed(
    sink: str, score: Score, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"text": texts(400), "note": [os.urandom(40).hex() for _ in range(400)]})
    options: dict[str, Any] = {"shard_rows": 100, "keep": ("note",), "output_format": sink}
    score("text-classifier", source, tmp_path / "fresh", **options)
    request.getfixturevalue("small_files")
    result = score("text-classifier", source, tmp_path / "out", **options)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert result.summary is None
    assert "File too large" in result.failures[0]
    assert "shard 00000-000000 (a.jsonl, rows 0 to 99)" in result.failures[0]
    wanted = tree(tmp_path / "fresh")
    assert not [name for name in tree(tmp_path / "out") if name.startswith("predictions")]
    again = score("text-classifier", source, tmp_path / "out", **options)
    assert again.failures == ()
    assert tree(tmp_path / "out") == wanted


def test_rejects_are_logged_with_shard_and_row(score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = texts(40)
    bad: dict[int, Any] = {**dict.fromkeys([3, 4, 5, 9, 25, 31, 32], None), 7: 1}
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [bad.get(i, text) for i, text in enumerate(good)]})
    score("text-classifier", source, tmp_path / "out", shard_rows=30)
    assert [record.getMessage() for record in caplog.records] == [
        "shard 00000-000000: a.jsonl, rows 3-5, 9, 25: text: expected a non-empty text, got null",
        "shard 00000-000000: a.jsonl, row 7: text: expected a non-empty text, got 1",
        "shard 00000-000001: a.jsonl, rows 31-32: text: expected a non-empty text, got null",
    ]


def test_every_reject_is_logged_however_many_reasons_there_are(
    score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 2 * CHUNK_ROWS + 100
    source = write_jsonl(tmp_path / "a.jsonl", {"text": list(range(count))})
    score("text-classifier", source, tmp_path / "out", shard_rows=count)
    named: list[int] = []
    for record in caplog.records:
        where = re.fullmatch(r"shard 00000-000000: a.jsonl, rows? ([0-9, -]+): .*", record.getMessage())
        assert where is not None
        for run in where[1].split(", "):
            first, _, last = run.partition("-")
            named += range(int(first), int(last or first) + 1)
    assert sorted(named) == list(range(count))
    assert len(caplog.records) <= LOGGED_REASONS + 3  # a line more for each chunk
    assert (
        caplog.records[-1]
        .getMessage()
        .endswith(f"rows {2 * CHUNK_ROWS}-{count - 1}: see rejects/part-00000-000000.jsonl")
    )


def test_lines_of_the_log_are_short_enough_for_a_pipe_that_workers_share(
    score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [None if i % 2 else "the" for i in range(CHUNK_ROWS)]
    source = write_jsonl(tmp_path / ("ä" * 120 + ".jsonl"), {"text": rows})
    score("text-classifier", source, tmp_path / "out", shard_rows=CHUNK_ROWS)
    lines = [record.getMessage() for record in caplog.records]
    assert max(len(line.encode()) for line in lines) < LOGGED_BYTES
    assert len(lines) > 1
    found = [re.fullmatch(r"shard 00000-000000: ä+.jsonl, rows? ([0-9, ]+[0-9]): text: .*", line) for line in lines]
    assert [int(number) for where in found if where for number in where[1].split(", ")] == list(range(1, CHUNK_ROWS, 2))


def test_a_stranger_cannot_write_lines_of_the_log(
    score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["evil\nshard 00000-000000: all is well \x1b[2J", "é" * 1_000_000]
    lines = [
        {"custom_id": "x", "url": "/v1/completions", "body": {"prompt": "a", name: 1}, "note": "fine"} for name in names
    ]
    source = tmp_path / "a\x1b[2J\n.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    score("language-model", source, tmp_path / "out", input_format="openai", request={})
    assert [row["reason"][:12] for row in rejects(tmp_path / "out")] == ["body: 'evil\\", "body: 'ééééé"]
    assert [record.getMessage() for record in caplog.records] == [
        r"shard 00000-000000: a\x1b[2J\n.jsonl, row 0: body: 'evil\nshard 00000-000000: all is well \ is not supported",
        f"shard 00000-000000: a\\x1b[2J\\n.jsonl, row 1: body: '{'é' * 39} is not supported",
    ]


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\n" * 400, "\U000e0001" * 400, "\ud800" * 400, "🙂" * 400])
def test_what_is_logged_is_printable_and_short(text: str) -> None:
    logged = loggable(text)
    assert logged.isprintable()
    assert len(logged) == LOGGED_CHARS
    assert loggable("as it is: é 🙂") == "as it is: é 🙂"


def test_hive_partitions_and_several_files(score: Score, tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        write_parquet(folder / "a.parquet", {"text": texts(3)})
    score("text-classifier", tmp_path / "in", tmp_path / "out", keep=("day",))
    assert [row["day"] for row in predictions(tmp_path / "out")] == ["monday"] * 3 + ["tuesday"] * 3


def test_a_huge_row_among_small_ones(score: Score, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in texts(20)]
    lines[7] = json.dumps({"text": "the " * 6_000_000})
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    result = score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out")
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (19, 1)
    assert "expected a line of at most" in rejects(tmp_path / "out")[0]["reason"]


def test_an_archive_of_pictures_in_a_worker_that_takes_shards_out_of_order(score: Score, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tgz", images(60))
    score("image-classifier", source, tmp_path / "out", shard_rows=7)
    records = sorted((tmp_path / "out" / "_ledger" / "shards").iterdir())
    wanted = tree(tmp_path / "out")
    for path in (records[6], records[2]):
        path.unlink()
    (tmp_path / "out" / "_ledger" / "done.json").unlink()
    assert score("image-classifier", source, tmp_path / "out", shard_rows=7).computed == 14
    assert tree(tmp_path / "out") == wanted


def test_columns_of_text_that_is_dictionary_encoded(score: Score, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"text": pa.array(texts(10)).dictionary_encode()})
    result = score("text-classifier", source, tmp_path / "out")
    assert result.summary is not None
    assert result.summary["scored"] == 10
