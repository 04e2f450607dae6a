"""Records belong to files as they were scanned, are shared by the workers of a host, and outlive a worker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.engine.process.identity import is_alive, process_identity
from service.engine.repository import load_records
from service.engine.repository.load_records import LoadRecords, Outcome, ProofBusyError, record_key
from tests.e2e.serving import ROOT

KEY = record_key("m", "1", (("model.onnx", 1, 2, 3),))
DIE = """
import os, sys
from pathlib import Path
from service.engine.repository.load_records import LoadRecords
with LoadRecords(Path(sys.argv[1])).loading(sys.argv[2]):
    os._exit(1)
"""


def die_while_loading(folder: Path, key: str = KEY) -> None:
    subprocess.run([sys.executable, "-c", DIE, str(folder), key], cwd=ROOT, check=False, timeout=60)


def test_a_key_belongs_to_the_files() -> None:
    assert record_key("m", "1", (("model.onnx", 1, 2, 3),)) == KEY
    for other in (("n", "1", (("model.onnx", 1, 2, 3),)), ("m", "2", ()), ("m", "1", (("model.onnx", 1, 2, 4),))):
        assert record_key(*other) != KEY


def test_an_outcome_is_seen_by_other_workers(tmp_path: Path) -> None:
    mine, other = LoadRecords(tmp_path), LoadRecords(tmp_path)
    assert other.outcome(KEY) is None
    mine.store(KEY, Outcome(digest="d"))
    assert mine.outcome(KEY) == other.outcome(KEY) == Outcome(digest="d")
    assert LoadRecords(tmp_path).outcome(record_key("m", "2", ())) is None


def test_a_discarded_record_is_gone_for_new_workers(tmp_path: Path) -> None:
    records = LoadRecords(tmp_path)
    records.store(KEY, Outcome(failure="f"))
    die_while_loading(tmp_path)
    assert records.deaths(KEY) == 1
    records.discard(KEY)
    assert (records.outcome(KEY), records.deaths(KEY)) == (None, 0)
    assert LoadRecords(tmp_path).outcome(KEY) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"other": 1}'])
def test_a_record_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.outcome").write_text(content)
    assert LoadRecords(tmp_path).outcome(KEY) is None


def test_one_worker_proves_at_a_time(tmp_path: Path) -> None:
    mine, other = LoadRecords(tmp_path), LoadRecords(tmp_path)
    with mine.proving(KEY):
        with pytest.raises(ProofBusyError), other.proving(KEY):
            pass
        with other.proving(record_key("n", "1", ())):
            pass
    with other.proving(KEY):
        pass


def test_deaths_count_the_workers_that_died_while_loading(tmp_path: Path) -> None:
    records = LoadRecords(tmp_path)
    assert records.deaths(KEY) == 0
    with records.loading(KEY):
        assert LoadRecords(tmp_path).deaths(KEY) == 0, "this process is alive"
    assert list(tmp_path.glob("*.loading")) == []
    die_while_loading(tmp_path)
    assert records.deaths(KEY) == 1
    assert records.deaths(KEY) == 1
    assert records.deaths(record_key("n", "1", ())) == 0
    die_while_loading(tmp_path)
    assert LoadRecords(tmp_path).deaths(KEY) == 2


def test_workers_that_count_at_the_same_time_count_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker renames the mark after this one has seen it."""
    die_while_loading(tmp_path)
    other = LoadRecords(tmp_path)

    def let_the_other_count(identity: str) -> bool:
        monkeypatch.setattr(load_records, "is_alive", is_alive)
        assert other.deaths(KEY) == 1
        return is_alive(identity)

    monkeypatch.setattr(load_records, "is_alive", let_the_other_count)
    assert LoadRecords(tmp_path).deaths(KEY) == 1


def test_a_load_that_fails_is_no_death(tmp_path: Path) -> None:
    records = LoadRecords(tmp_path)
    with pytest.raises(ValueError, match="x"), records.loading(KEY):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_ends_removes_its_marks(tmp_path: Path) -> None:
    records = LoadRecords(tmp_path)
    other = tmp_path / f"{KEY}.1-1.loading"
    other.touch()
    with records.loading(KEY):
        records.close()
        assert list(tmp_path.iterdir()) == [other]
    assert process_identity(os.getpid()) not in other.name


def test_without_a_folder_everything_stays_in_memory() -> None:
    records = LoadRecords(None)
    with records.proving(KEY), records.loading(KEY):
        records.store(KEY, Outcome(digest="d"))
    assert records.outcome(KEY) == Outcome(digest="d")
    assert records.deaths(KEY) == 0
    records.discard(KEY)
    records.close()
    assert records.outcome(KEY) is None


def test_a_folder_that_cannot_be_written_is_said_once_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = LoadRecords(tmp_path / "nowhere")
    for _ in range(2):
        with records.proving(KEY), records.loading(KEY):
            records.store(KEY, Outcome(digest="d"))
    assert records.outcome(KEY) == Outcome(digest="d")
    assert records.deaths(KEY) == 0
    assert caplog.text.count("cannot write to") == 1
    assert "each worker proves every version itself" in caplog.text
