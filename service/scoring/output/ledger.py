"""Records which shards are committed and locked; the only code that makes output visible.

OUT/predictions/part-FFFFF-NNNNNN.*   the predictions of shard N of file F
OUT/rejects/part-FFFFF-NNNNNN.jsonl   its rejected rows, if any
OUT/_ledger/job.json                  the job that this folder belongs to
OUT/_ledger/shards/FFFFF-NNNNNN.json  the record of a shard; the shard is committed when the record exists
OUT/_ledger/lock                      one byte per shard, locked by the process that scores it

Invariants: a file becomes visible only when it is complete (written under another name, then renamed). The rename of
its record, which comes last, commits a shard. A lock is released when its process dies. A folder holds one job: another
model, option or input is refused.

A commit does not wait for the disk. When the job resumes, files that a power cut damaged do not match the hashes in
their record, and their shard is scored again. Everything is on the disk before the job counts as finished.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.scoring.job import Job, ScoringError
from service.scoring.plan import PlannedFile, Shard

FOLDER = "_ledger"
FINISH_BYTE = (1 << 62) - 1
REMEDY = "choose another --output or delete that folder"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A committed shard: its input, its counts, and `parts`: paths below the output folder with their sha256."""

    key: str
    file: str
    first_row: int
    scored: int
    rejected: int
    labels: list[int]
    confidence: list[int]
    parts: dict[str, str]


class Ledger:
    def __init__(self, output: Path) -> None:
        self.output = output
        self._folder = output / FOLDER
        self._lock_fd: int | None = None

    def open_job(self, job: Job, inputs: list[str]) -> None:
        """Claim the folder for this job, or check that it already belongs to it. Raises ScoringError otherwise."""
        path = self._folder / "job.json"
        expected = json.loads(json.dumps({"inputs": inputs, **job.identity()}))
        if not path.exists():
            try:
                self.output.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise ScoringError(f"--output {self.output} is not a folder") from None
            others = [entry.name for entry in os.scandir(self.output) if entry.name != FOLDER]
            if others:
                raise ScoringError(f"--output {self.output} is not empty ({others[0]}) and holds no scoring job")
            for folder in ("shards", "work"):
                (self._folder / folder).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self._create_file(path, _to_json(expected))
        actual = self._read_json(path)
        if actual != expected:
            names = sorted(n for n in actual.keys() | expected.keys() if actual.get(n) != expected.get(n))
            changed = "; ".join(f"{n} was {actual.get(n)!r}, is {expected.get(n)!r}" for n in names)
            raise ScoringError(f"{self.output} belongs to another job ({changed}): {REMEDY}")

    def committed(self, shard: Shard) -> Record | None:
        """The record of a shard whose files are intact, else None. Raises ScoringError if the shard has changed."""
        record = self._read_record(self._record_path(shard))
        if record is None:
            return None
        if record.key != shard.key:
            raise ScoringError(
                f"the input changed: {shard.title} no longer matches its record in {self.output} ({record.file} from "
                f"row {record.first_row}): {REMEDY}"
            )
        with contextlib.suppress(FileNotFoundError):
            if all(sha256_of(self.output / part) == digest for part, digest in record.parts.items()):
                return record
        return None

    def try_lock(self, shard: Shard) -> bool:
        """Lock the shard; False if another process holds its lock."""
        try:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _lock_byte(shard))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, shard: Shard) -> None:
        fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, _lock_byte(shard))

    def work_path(self, shard: Shard, suffix: str) -> Path:
        """A path that only the process with the shard's lock writes to, and that no process reads."""
        return self._folder / "work" / f"{shard.name}.{suffix}"

    def commit(self, shard: Shard, record: Record, parts: Mapping[str, Path]) -> None:
        """Rename the parts (path below the output folder -> written file) into place, then write the record."""
        for name, written in parts.items():
            target = self.output / name
            target.parent.mkdir(exist_ok=True)
            written.replace(target)
        path = self._record_path(shard)
        self._write_aside(path, _to_json(asdict(record))).replace(path)

    def records(self) -> Iterator[Record]:
        """Every committed shard, in order."""
        for path in sorted((self._folder / "shards").glob("*.json")):
            record = self._read_record(path)
            if record is None:
                raise ScoringError(f"{path} was damaged while the job ran: the same command repairs it")
            yield record

    def check_planned(self, planned: PlannedFile) -> None:
        """Raise ScoringError if records exist for more shards than the file has."""
        stems = (path.stem for path in (self._folder / "shards").glob(f"{planned.file_number:05d}-*.json"))
        if any(int(stem.partition("-")[2]) >= planned.shards for stem in stems):
            raise ScoringError(
                f"the input changed: {planned.file.name} is shorter than what was scored into {self.output}: "
                "choose another --output, or delete it"
            )

    def finish(self, files: Mapping[str, bytes], fingerprints: Mapping[str, str]) -> None:
        """Write the files about the whole job, then the fingerprints that mark it finished; one process at a time."""
        fcntl.lockf(self._lock_file(), fcntl.LOCK_EX, 1, FINISH_BYTE)
        try:
            if not self.is_finished(fingerprints):
                for name, content in files.items():
                    self._write_aside(self.output / name, content).replace(self.output / name)
                self._sync_output()
                written = self._write_aside(self._folder / "done.json", _to_json(dict(fingerprints)))
                _sync(written)
                written.replace(self._folder / "done.json")
                shutil.rmtree(self._folder / "work", ignore_errors=True)
        finally:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, FINISH_BYTE)

    def _sync_output(self) -> None:
        """Wait until every visible file is on the disk."""
        for folder in (self.output, self._folder / "shards", self.output / "predictions", self.output / "rejects"):
            if folder.exists():
                for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
                    _sync(path)

    def is_finished(self, fingerprints: Mapping[str, str]) -> bool:
        """Whether the job was finished with exactly this input."""
        path = self._folder / "done.json"
        if not path.exists() or self._read_json(path) != dict(fingerprints):
            return False
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        return True

    def resume(self) -> None:
        """Mark the job as unfinished and create the folder for its work files."""
        (self._folder / "done.json").unlink(missing_ok=True)
        (self._folder / "work").mkdir(exist_ok=True)

    def has_finished(self) -> bool:
        """Whether the job was finished, with whatever input."""
        return (self._folder / "done.json").exists()

    def read_job(self) -> dict[str, Any] | None:
        """The job that the folder belongs to, or None."""
        path = self._folder / "job.json"
        return self._read_json(path) if path.exists() else None

    def save_progress(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace the progress of one process. It is dropped when the job is finished."""
        path = self._folder / "work" / f"{name}.progress"
        self._write_aside(path, _to_json(dict(content))).replace(path)

    def read_progress(self) -> list[dict[str, Any]]:
        """The progress of each process that has worked on the job since it was finished last."""
        return [self._read_json(path) for path in sorted((self._folder / "work").glob("*.progress"))]

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _lock_file(self) -> int:
        """The lock file, opened once: a process that closes any handle of a file loses all its locks on it."""
        if self._lock_fd is None:
            self._lock_fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._lock_fd

    def _record_path(self, shard: Shard) -> Path:
        return self._folder / "shards" / f"{shard.name}.json"

    def _create_file(self, path: Path, content: bytes) -> None:
        """Write a file that must not exist yet, and wait until it is on the disk: the job cannot resume without it."""
        written = self._write_aside(path, content)
        try:
            _sync(written)
            os.link(written, path)
            _sync(path.parent)
        finally:
            written.unlink()

    def _write_aside(self, path: Path, content: bytes) -> Path:
        """Write to a file in the work folder, to be renamed to `path`."""
        written = self._folder / "work" / f"{path.name}.{os.getpid()}"
        try:
            written.write_bytes(content)
        except OSError:
            written.unlink(missing_ok=True)
            raise
        return written

    def _read_record(self, path: Path) -> Record | None:
        """None if the record does not exist or is damaged."""
        try:
            return Record(**json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _read_json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise ScoringError(f"{path} is damaged: {error}; delete {self.output} and start again") from error


def _lock_byte(shard: Shard) -> int:
    return (shard.file_number << 32) + shard.number


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
