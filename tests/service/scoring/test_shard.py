"""Bad rows, unreadable files and full disks."""

import errno
import json
import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.scoring import shard
from service.scoring.job import Job
from service.scoring.sources.stream import Stream
from tests.service.bundles import write_bundle
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
from tests.service.scoring.sources.text.test_openai import line as openai_line
from tests.service.scoring.sources.text.test_openai import write as write_openai

# One row in this many is bad.
EVERY = 100
BAD: dict[str, list[Any]] = {
    "image-classifier": [None, "not base64!", [[1, 2]], [[256] * 4] * 4, [["a"] * 4] * 4, {"x": 1}],
    "text-classifier": [None, "", "the " * 50, 5, ["a"], {"x": 1}],
    "series-classifier": [None, [], [[1]], [[1, "a"]], [[0, 0]] * 50, [[1e300, 0]]],
    "series-tagger": [None, [], [[1]], [[1, None]], [[0, 0]] * 50, [[-1e300, 0]]],
    "language-model": [None, "", "a" * 200, 5, ["a"], {"x": 1}],
    "image-generator": ["x", -1, 1.5, 2**60, [1], {"x": 1}],
}


@pytest.mark.parametrize("family", BAD)
def test_bad_rows_are_rejected_and_all_others_scored(family: str, score: Score, tmp_path: Path) -> None:
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
    bad_rows = [i * every + 7 for i in range(len(BAD[family]))]
    found = rejects(tmp_path / "b")
    assert [(row["file"], row["row"], row["line"], row["id"]) for row in found] == [
        ("dirty.jsonl", row, row + 1, row) for row in bad_rows
    ]
    assert all(row["reason"] and row["shard"].startswith("00000-") for row in found)
    expected = [{**row, "file": "dirty.jsonl"} for row in predictions(tmp_path / "a") if row["row"] not in bad_rows]
    assert predictions(tmp_path / "b") == expected


def test_non_finite_numbers_are_rejected_with_their_position(score: Score, tmp_path: Path) -> None:
    rows = series(300)
    for i in range(0, 300, 100):
        rows[i][0, 1] = [np.nan, np.inf, -np.inf][i // 100]
    source = write_parquet(tmp_path / "a.parquet", {"series": arrow_series(rows)})
    result = score("series-classifier", source, tmp_path / "out")
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (297, 3)
    assert [row["row"] for row in rejects(tmp_path / "out")] == [0, 100, 200]
    assert all("series/0/1: expected" in row["reason"] for row in rejects(tmp_path / "out"))


def test_bad_csv_records_are_rejected_with_their_line_numbers(score: Score, tmp_path: Path) -> None:
    lines = [f"{i},{text}".encode() for i, text in enumerate(texts(200))]
    lines[50], lines[150] = b"50,caf\xe9", b"150"
    (tmp_path / "a.csv").write_bytes(b"id,text\n" + b"\n".join(lines))
    score("text-classifier", tmp_path / "a.csv", tmp_path / "out", id_column="id")
    assert [(row["row"], row["line"], row["reason"]) for row in rejects(tmp_path / "out")] == [
        (50, 52, "column 'text' is not UTF-8: byte 0xe9"),
        (150, 152, "expected 2 fields, got 1"),
    ]


def test_files_that_are_not_readable_images_are_rejected(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    valid = images(3)
    contents = {
        "a.png": png(valid[0]),
        "b.png": b"",
        "c.jpg": b"GIF89a",
        "d.gif": b"GIF89a",
        "e.png": png(valid[1])[:50],
        "f.png": png(np.zeros((9, 9), np.uint8)),
        "g.png": png(valid[2]),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    score("image-classifier", folder, tmp_path / "out", id_column="name")
    assert [row["name"] for row in predictions(tmp_path / "out")] == ["a.png", "g.png"]
    assert [row["name"] for row in rejects(tmp_path / "out")] == ["b.png", "c.jpg", "d.gif", "e.png", "f.png"]


def test_input_of_bad_rows_alone_is_rejected(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [None] * 40})
    result = score("text-classifier", source, tmp_path / "out")
    assert result.reject_share == 1.0
    assert predictions(tmp_path / "out") == []
    assert len(rejects(tmp_path / "out")) == 40


def test_duplicate_and_null_ids_are_copied_unchanged(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"id": ["x", "x", None, {"a": 1}], "text": texts(4)})
    score("text-classifier", source, tmp_path / "out", id_column="id")
    assert [row["id"] for row in predictions(tmp_path / "out")] == ["x", "x", None, '{"a":1}']


def test_corrupt_file_is_reported_others_are_scored_and_the_repaired_job_resumes(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write_parquet(folder / f"{name}.parquet", {"text": texts(40, seed=ord(name))}, group=10)
    whole = (folder / "b.parquet").read_bytes()
    corrupt = bytearray(whole)
    middle = len(whole) // 3
    corrupt[middle : middle + 40] = bytes(40)
    (folder / "b.parquet").write_bytes(corrupt)
    result = score("text-classifier", folder, tmp_path / "out", shard_rows=10)
    assert result.summary is None
    assert result.failures
    assert all("b.parquet" in failure for failure in result.failures)
    assert not (tmp_path / "out" / "summary.json").exists()
    done = len(predictions(tmp_path / "out"))
    assert done >= 80
    # The failure is of a shard rather than of the plan.
    if any("row" in failure for failure in result.failures):
        assert "shard 00001-" in result.failures[0]
    (folder / "b.parquet").write_bytes(whole)
    for path in (tmp_path / "out" / "_ledger" / "shards").glob("00001-*"):
        # The intact file is cut into other shards than the corrupt one.
        path.unlink()
    again = score("text-classifier", folder, tmp_path / "out", shard_rows=10)
    assert again.failures == ()
    score("text-classifier", folder, tmp_path / "fresh", shard_rows=10)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_truncated_gzip_is_reported_and_the_repaired_job_resumes(score: Score, tmp_path: Path) -> None:
    import gzip

    noise = random.Random(0)
    rows = (b"%s,%s\n" % (noise.randbytes(600).hex().encode(), text.encode()) for text in texts(3000))
    content = b"id,text\n" + b"".join(rows)
    source = tmp_path / "a.csv.gz"
    compressed = gzip.compress(content)
    source.write_bytes(compressed[: len(compressed) * 2 // 3])
    result = score("text-classifier", source, tmp_path / "out", shard_rows=100)
    assert result.summary is None
    assert "a.csv.gz: OSError: Truncated compressed stream" in result.failures[0]
    done = len(predictions(tmp_path / "out"))
    assert done >= 100
    source.write_bytes(compressed)
    again = score("text-classifier", source, tmp_path / "out", shard_rows=100)
    assert again.failures == ()
    assert again.computed == 3000 - done
    score("text-classifier", source, tmp_path / "fresh", shard_rows=100)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("failing", range(4, 16))
def test_read_error_is_reported_leaves_nothing_partial_and_the_job_resumes(
    failing: int, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at any one of the reads, during planning or scoring."""
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
    expected = tree(tmp_path / "fresh")
    displayed = {name: content for name, content in tree(tmp_path / "out").items() if name.startswith("predictions")}
    assert displayed.items() <= expected.items()
    again = score("text-classifier", source, tmp_path / "out", shard_rows=40)
    assert again.failures == ()
    assert tree(tmp_path / "out") == expected


def test_file_changed_while_it_is_scored_is_a_failure(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.scoring import shard

    source = write_csv(tmp_path / "a.csv", {"text": texts(10)})
    monkeypatch.setattr(shard, "current_fingerprint", lambda file: "another")
    result = score("text-classifier", source, tmp_path / "out")
    assert result.failures == ("a.csv: the file was changed while the job ran",)
    assert predictions(tmp_path / "out") == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB, which to a writer is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_full_disk_is_reported_leaves_nothing_partial_and_the_job_resumes(
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
    expected = tree(tmp_path / "fresh")
    assert not [name for name in tree(tmp_path / "out") if name.startswith("predictions")]
    again = score("text-classifier", source, tmp_path / "out", **options)
    assert again.failures == ()
    assert tree(tmp_path / "out") == expected


def test_hive_partitions_are_columns(score: Score, tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        write_parquet(folder / "a.parquet", {"text": texts(3)})
    score("text-classifier", tmp_path / "in", tmp_path / "out", keep=("day",))
    assert [row["day"] for row in predictions(tmp_path / "out")] == ["monday"] * 3 + ["tuesday"] * 3


def test_row_above_the_size_limit_is_rejected_alone(score: Score, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in texts(20)]
    lines[7] = json.dumps({"text": "the " * 6_000_000})
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    result = score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out")
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (19, 1)
    assert "expected a line of at most" in rejects(tmp_path / "out")[0]["reason"]


def test_archive_shards_can_be_scored_out_of_order(score: Score, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tgz", images(60))
    score("image-classifier", source, tmp_path / "out", shard_rows=7)
    records = sorted((tmp_path / "out" / "_ledger" / "shards").iterdir())
    expected = tree(tmp_path / "out")
    for path in (records[6], records[2]):
        path.unlink()
    (tmp_path / "out" / "_ledger" / "done.json").unlink()
    assert score("image-classifier", source, tmp_path / "out", shard_rows=7).computed == 14
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("sink", ["jsonl", "csv"])
def test_an_openai_batch_is_answered_in_openai_format_in_json_alone(sink: str, score: Score, tmp_path: Path) -> None:
    source = write_openai(tmp_path / "a.jsonl", [openai_line("a", prompt="ab", max_tokens=2)])
    options: dict[str, Any] = {"input_format": "openai", "output_format": sink, "request": {}}
    assert score("language-model", source, tmp_path / "out", **options).failures == ()
    [part] = (tmp_path / "out" / "predictions").iterdir()
    assert ('"object":"text_completion"' in part.read_text().replace(" ", "")) == (sink == "jsonl")


def test_other_inputs_are_not_answered_in_openai_format(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"prompt": ["ab"]})
    assert score("language-model", source, tmp_path / "out", output_format="jsonl").failures == ()
    [part] = (tmp_path / "out" / "predictions").iterdir()
    assert "completion" not in part.read_text()
    assert '"text"' in part.read_text()


def test_a_file_stays_open_between_its_shards_and_no_longer(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.scoring import shard

    opened: list[str] = []
    closed: list[str] = []
    real = shard.SOURCES["jsonl"]

    def source_of(file: Any, spec: Any) -> Any:
        source = real(file, spec)
        opened.append(file.name)
        close = source.close

        def close_and_record() -> None:
            closed.append(file.name)
            close()

        monkeypatch.setattr(source, "close", close_and_record)
        return source

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_jsonl(folder / f"{name}.jsonl", {"text": texts(40)})
    monkeypatch.setattr(shard, "SOURCES", {**shard.SOURCES, "jsonl": source_of})
    assert score("text-classifier", folder, tmp_path / "out", shard_rows=10).failures == ()
    assert opened == closed == ["a.jsonl", "b.jsonl"]


def test_dictionary_encoded_text_column_is_scored(score: Score, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"text": pa.array(texts(10)).dictionary_encode()})
    result = score("text-classifier", source, tmp_path / "out")
    assert result.summary is not None
    assert result.summary["scored"] == 10


def test_a_worker_allows_tf32_if_all_its_models_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides before it loads the first model, which may allow TF32 where the next one does not."""
    calls: list[Any] = []
    monkeypatch.setattr(shard, "JobContext", lambda job: calls.append(job.model))
    monkeypatch.setattr(shard, "require_provider", lambda device, *, allow_tf32: calls.append((device, allow_tf32)))
    jobs = []
    for kind in ("tf32", "fp16"):
        precision = {"kind": kind, "parent": f"tiny/{'0' * 12}", "items": 1, "agreement": 1.0}
        folder = write_bundle(tmp_path, "text-classifier", name=f"a-{kind}", precision=precision)
        jobs.append(Job.model_construct(bundles=tmp_path, model=f"a-{kind}", version=folder.name, device="cuda"))
    shard.Context(jobs[:1])
    assert calls == [("cuda", True), "a-tf32"]
    calls.clear()
    shard.Context(jobs)
    assert calls == [("cuda", False), "a-tf32", "a-fp16"]
