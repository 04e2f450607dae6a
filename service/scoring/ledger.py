"""What is done, who is doing what, and the only code that makes output visible.

OUT/predictions/part-FFFFF-NNNNNN.*   the predictions of shard N of file F
OUT/rejects/part-FFFFF-NNNNNN.jsonl   its rejected rows, if any
OUT/_ledger/job.json                  the job that this folder belongs to
OUT/_ledger/shards/FFFFF-NNNNNN.json  a shard's record: with it, the shard is committed
OUT/_ledger/lock                      a byte a shard, locked by the process that computes it

Invariants: a file is visible only whole (written aside, then renamed). A shard is committed by the rename of its
record, last. A lock dies with its process. A folder holds one job: another model, option or input is refused.

A shard does not wait for the disk. What a power cut tears is found by the hashes in the records when the job goes on,
and is computed again; everything is on the disk before the job is said to be done.
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

from service.scoring.job import Job, ScoringError, changes
from service.scoring.plan import Planned, Shard

FOLDER = "_ledger"
FINISH_BYTE = (1 << 62) - 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """A committed shard: what went in, what came out, and what the summary adds up."""

    key: str
    file: str
    first_row: int
    scored: int
    rejected: int
    labels: tuple[int, ...]
    confidence: tuple[int, ...]
    parts: dict[str, str]  # path below the output folder -> sha256

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Record":
        tuples = {name: tuple(content[name]) for name in ("labels", "confidence")}
        return cls(**{**content, **tuples})


class Ledger:
    def __init__(self, output: Path) -> None:
        self.output = output
        self._folder = output / FOLDER
        self._lock: int | None = None

    def begin(self, job: Job, inputs: list[str]) -> None:
        """Take the folder for this job, or find that it already is this job's. Raises ScoringError if it is not."""
        path = self._folder / "job.json"
        if not path.exists():
            self._refuse_strangers()
            for folder in ("shards", "work"):
                (self._folder / folder).mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps({"inputs": inputs, **job.identity()}))
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                self._create(path, _encode(wanted))
        found = self._read(path)
        if found != wanted:
            what = "; ".join(changes(found, wanted))
            raise ScoringError(f"{self.output} holds another job ({what}): choose another --output, or delete it")

    def committed(self, shard: Shard) -> Record | None:
        """The record of a shard that is done. Raises ScoringError if one of other content has its place."""
        record = self._read_record(self._record(shard))
        if record is None:
            return None
        if record.key != shard.key:
            raise ScoringError(
                f"the input changed: {shard.title} is not what was scored into {self.output} ({record.file} from row "
                f"{record.first_row}): choose another --output, or delete it"
            )
        whole = all(self._holds(part, digest) for part, digest in record.parts.items())
        return record if whole else None

    def own(self, shard: Shard) -> bool:
        """Take the shard, unless another process has it."""
        try:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(shard))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, shard: Shard) -> None:
        fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, _byte(shard))

    def work_path(self, shard: Shard, suffix: str) -> Path:
        """Where the shard's owner writes; nobody else does, and nobody reads it."""
        return self._folder / "work" / f"{shard.name}.{suffix}"

    def commit(self, shard: Shard, record: Record, parts: Mapping[str, Path]) -> None:
        """Show the shard: its parts (path below the output folder -> written file), then its record."""
        for name, written in parts.items():
            target = self.output / name
            target.parent.mkdir(exist_ok=True)
            written.replace(target)
        self._replace(self._record(shard), _encode(record.to_json()))

    def records(self) -> Iterator[Record]:
        """Every committed shard, in order."""
        for path in sorted((self._folder / "shards").glob("*.json")):
            record = self._read_record(path)
            if record is None:
                raise ScoringError(f"{path} was damaged while the job ran: the same command repairs it")
            yield record

    def check_planned(self, planned: Planned) -> None:
        """Raises ScoringError if the file once had more shards than it has now."""
        stems = (path.stem for path in (self._folder / "shards").glob(f"{planned.file_number:05d}-*.json"))
        if any(int(stem.partition("-")[2]) >= planned.shards for stem in stems):
            raise ScoringError(
                f"the input changed: {planned.file.name} is shorter than what was scored into {self.output}: "
                "choose another --output, or delete it"
            )

    def finish(self, files: Mapping[str, bytes], stamps: Mapping[str, str]) -> None:
        """Write what describes the whole, then the stamps of the input, which say that all of it is done.

        One process at a time; whoever comes second finds it done.
        """
        fcntl.lockf(self._lock_file(), fcntl.LOCK_EX, 1, FINISH_BYTE)
        try:
            if not self.finished(stamps):
                for name, content in files.items():
                    self._replace(self.output / name, content)
                self._sync()
                done = self._write(self._folder / "done.json", _encode(dict(stamps)))
                _sync(done)
                done.replace(self._folder / "done.json")
                shutil.rmtree(self._folder / "work", ignore_errors=True)
        finally:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, FINISH_BYTE)

    def _sync(self) -> None:
        """Wait until all that the output shows is on the disk."""
        for folder in (self.output, self._folder / "shards", self.output / "predictions", self.output / "rejects"):
            if folder.exists():
                for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
                    _sync(path)

    def finished(self, stamps: Mapping[str, str]) -> bool:
        """Whether the job was finished with this very input."""
        path = self._folder / "done.json"
        if not path.exists() or self._read(path) != dict(stamps):
            return False
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        return True

    def resume(self) -> None:
        """The job goes on: it is not done until it says so again."""
        (self._folder / "done.json").unlink(missing_ok=True)
        (self._folder / "work").mkdir(exist_ok=True)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_file(self) -> int:
        """Opened once: a process that closes any handle of a file lets go of all its locks there."""
        if self._lock is None:
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._lock

    def _record(self, shard: Shard) -> Path:
        return self._folder / "shards" / f"{shard.name}.json"

    def _refuse_strangers(self) -> None:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ScoringError(f"--output {self.output} is not a folder") from None
        strangers = [entry.name for entry in os.scandir(self.output) if entry.name != FOLDER]
        if strangers:
            raise ScoringError(f"--output {self.output} is not empty ({strangers[0]}), and no scoring job's")

    def _create(self, path: Path, content: bytes) -> None:
        """Write a file that must not exist yet, and that no power cut may tear: nothing goes on without it."""
        written = self._write(path, content)
        try:
            _sync(written)
            os.link(written, path)
            _sync(path.parent)
        finally:
            written.unlink()

    def _replace(self, path: Path, content: bytes) -> None:
        self._write(path, content).replace(path)

    def _write(self, path: Path, content: bytes) -> Path:
        written = self._folder / "work" / f"{path.name}.{os.getpid()}"
        try:
            written.write_bytes(content)
        except OSError:
            written.unlink(missing_ok=True)
            raise
        return written

    def _read_record(self, path: Path) -> Record | None:
        """None if there is none, or what is there was torn."""
        try:
            return Record.from_json(json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _holds(self, part: str, digest: str) -> bool:
        try:
            return sha256_of(self.output / part) == digest
        except FileNotFoundError:
            return False

    def _read(self, path: Path) -> Any:
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise ScoringError(f"{path} is damaged: {error}; delete {self.output} and begin anew") from error


def _byte(shard: Shard) -> int:
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


def _encode(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
