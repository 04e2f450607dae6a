"""Commits, locks, damaged files, and output folders of other jobs."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Span
from service.scoring.job import ScoringError
from service.scoring.output.ledger import Ledger, Record
from service.scoring.output.local_folder import sha256_of
from service.scoring.plan import PlannedFile, Shard
from tests.service.scoring.test_job import job_of

FILE = InputFile(uri="/in.csv", name="in.csv", format="csv", size=1, fingerprint="1")
ROOT = Path(__file__).parents[4]


def shard_of(number: int = 0, key: str = "k") -> Shard:
    span = Span(first_row=number * 4, rows=4, start=0, stop=9, digest="d")
    return Shard(file_number=0, number=number, key=key, file=FILE, span=span)


def record_of(shard: Shard, **changed: Any) -> Record:
    fields = {
        "scored": 4,
        "rejected": 0,
        "labels": [1, 3],
        "confidence": [4],
        "parts": {},
        "sizes": dict.fromkeys(changed.get("parts", {}), 4),
    }
    return Record(**{"key": shard.key, "file": FILE.name, "first_row": shard.span.first_row, **fields, **changed})


def folder(ledger: Ledger) -> Path:
    return Path(ledger.output.path)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "out")
    ledger.open_job(job_of(tmp_path / "out"), ["in.csv"])
    ledger.resume()
    return ledger


def test_commit_makes_the_parts_visible_and_stores_the_record(ledger: Ledger) -> None:
    shard = shard_of()
    written = ledger.work_path(shard, "csv")
    written.write_text("row\n")
    assert ledger.committed(shard) is None
    record = record_of(shard, parts={"predictions/part-a.csv": sha256_of(written)})
    ledger.commit(shard, record, {"predictions/part-a.csv": written})
    assert (folder(ledger) / "predictions" / "part-a.csv").read_text() == "row\n"
    assert not written.exists()
    assert Ledger(folder(ledger)).committed(shard) == record
    assert list(ledger.records()) == [record]


def test_deleted_part_invalidates_its_record(ledger: Ledger) -> None:
    shard = shard_of()
    ledger.commit(shard, record_of(shard, parts={"predictions/gone.csv": "x"}), {})
    assert ledger.committed(shard) is None


def test_record_of_other_content_is_an_error(ledger: Ledger) -> None:
    ledger.commit(shard_of(), record_of(shard_of()), {})
    with pytest.raises(ScoringError, match=r"the input changed: shard 00000-000000"):
        ledger.committed(shard_of(key="other"))
    with pytest.raises(ScoringError, match=r"in\.csv is shorter"):
        ledger.check_planned(PlannedFile(jobs=(0,), file_number=0, file=FILE, shards=0))
    ledger.check_planned(PlannedFile(jobs=(0,), file_number=0, file=FILE, shards=1))


def test_shard_lock_is_exclusive_and_ends_with_its_process(ledger: Ledger) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "from service.scoring.output.ledger import Ledger\n"
        "from tests.service.scoring.output.test_ledger import shard_of\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1])); print(ledger.try_lock(shard_of(5)), flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder(ledger)), str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert other.stdout
    assert other.stdin
    assert other.stdout.readline() == "True\n"
    assert not ledger.try_lock(shard_of(5))
    assert ledger.try_lock(shard_of(6))
    other.kill()
    other.wait()
    assert ledger.try_lock(shard_of(5))
    other.stdin.close()
    other.stdout.close()
    ledger.close()


def can_lock_elsewhere(ledger: Ledger, number: int) -> bool:
    """Whether another process could lock the shard now."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "from service.scoring.output.ledger import Ledger\n"
        "from tests.service.scoring.output.test_ledger import shard_of\n"
        "print(Ledger(pathlib.Path(sys.argv[1])).try_lock(shard_of(int(sys.argv[3]))))"
    )
    command = [sys.executable, "-c", code, str(folder(ledger)), str(ROOT), str(number)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout == "True\n"


def test_unlock_releases_the_lock_of_its_shard_alone(ledger: Ledger) -> None:
    assert ledger.try_lock(shard_of(7))
    assert ledger.try_lock(shard_of(8))
    assert not can_lock_elsewhere(ledger, 7)
    ledger.unlock(shard_of(7))
    assert can_lock_elsewhere(ledger, 7)
    assert not can_lock_elsewhere(ledger, 8)
    ledger.close()
    assert can_lock_elsewhere(ledger, 8)


def test_shards_of_different_files_have_different_locks(ledger: Ledger) -> None:
    """Shard numbers stay below 2**32."""
    other_file = dataclasses.replace(shard_of(7), file_number=1)
    assert ledger.try_lock(other_file)
    assert can_lock_elsewhere(ledger, 7)
    ledger.close()


def test_a_finished_job_is_not_written_again(ledger: Ledger) -> None:
    ledger.finish({"summary.json": b"first"}, {"in.csv": "1"})
    ledger.finish({"summary.json": b"second"}, {"in.csv": "1"})
    assert (folder(ledger) / "summary.json").read_bytes() == b"first"
    ledger.resume()
    ledger.finish({"summary.json": b"third"}, {"in.csv": "1"})
    assert (folder(ledger) / "summary.json").read_bytes() == b"third"
    ledger.close()


def test_output_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("irreplaceable")
    with pytest.raises(ScoringError, match=r"is not empty \(thesis.docx\)"):
        Ledger(tmp_path / "out").open_job(job_of(tmp_path / "out"), ["in.csv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ScoringError, match="is not a folder"):
        Ledger(tmp_path / "file").open_job(job_of(tmp_path / "file"), ["in.csv"])


def test_error_for_another_job_names_the_changed_option(ledger: Ledger) -> None:
    with pytest.raises(ScoringError, match=re.escape("version was '000000000000', is '111111111111'")):
        ledger.open_job(job_of(folder(ledger), version="1" * 12), ["in.csv"])
    ledger.open_job(job_of(folder(ledger)), ["in.csv"])


def test_error_for_another_job_names_both_values_of_each_changed_option(ledger: Ledger) -> None:
    path = folder(ledger) / "_ledger" / "job.json"
    stored = json.loads(path.read_text())
    del stored["sink"]
    path.write_text(json.dumps({**stored, "limit": 2, "other": 4}))
    message = "(limit was 2, is 3; other was 4, is None; sink was None, is 'parquet')"
    with pytest.raises(ScoringError, match=re.escape(message)):
        ledger.open_job(job_of(folder(ledger), limit=3), ["in.csv"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "k"}'])
def test_damaged_record_counts_as_missing(content: str, ledger: Ledger) -> None:
    ledger.commit(shard_of(), record_of(shard_of()), {})
    (folder(ledger) / "_ledger" / "shards" / "00000-000000.json").write_text(content)
    assert ledger.committed(shard_of()) is None
    with pytest.raises(ScoringError, match=r"00000-000000.json was damaged"):
        list(ledger.records())


def test_damaged_part_invalidates_its_record(ledger: Ledger) -> None:
    written = ledger.work_path(shard_of(), "csv")
    written.write_text("row\n")
    record = record_of(shard_of(), parts={"predictions/a.csv": sha256_of(written)})
    ledger.commit(shard_of(), record, {"predictions/a.csv": written})
    (folder(ledger) / "predictions" / "a.csv").write_text("")
    assert ledger.committed(shard_of()) is None


def test_damaged_job_file_is_reported(ledger: Ledger) -> None:
    (folder(ledger) / "_ledger" / "job.json").write_text("{")
    with pytest.raises(ScoringError, match=r"job.json is damaged"):
        ledger.open_job(job_of(folder(ledger)), ["in.csv"])


def test_visible_files_are_synced_before_the_job_is_finished(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = shard_of()
    parts = {name: ledger.work_path(shard, suffix) for suffix, name in (("a", "predictions/a"), ("b", "rejects/b"))}
    for written in parts.values():
        written.write_text("row\n")
    ledger.commit(shard, record_of(shard, parts={name: sha256_of(path) for name, path in parts.items()}), parts)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    ledger.finish({"summary.json": b"{}"}, {"in.csv": "1"})
    displayed = [path for path in folder(ledger).rglob("*") if path.name not in {"lock", "job.json", "_ledger"}]
    assert {path.name for path in displayed if path.stat().st_ino not in synced} == set()
    assert len(displayed) == 8
    assert (folder(ledger) / "_ledger" / "done.json").stat().st_ino == synced[-1]
    ledger.close()


def test_finish_removes_work_files_and_resume_undoes_it(ledger: Ledger) -> None:
    ledger.work_path(shard_of(), "csv").write_text("half")
    assert not ledger.is_finished({"in.csv": "1"})
    ledger.finish({"summary.json": b"{}"}, {"in.csv": "1"})
    assert ledger.is_finished({"in.csv": "1"})
    assert not ledger.is_finished({"in.csv": "2"})
    assert sorted(path.name for path in (folder(ledger) / "_ledger").iterdir()) == [
        "done.json",
        "job.json",
        "lock",
        "shards",
    ]
    ledger.resume()
    assert not ledger.is_finished({"in.csv": "1"})
    ledger.close()
