"""Records which shards are committed and locked; the only code that makes output visible.

OUT/predictions/part-FFFFF-NNNNNN.*   the predictions of shard N of file F; partitions are folders below `predictions`
OUT/rejects/part-FFFFF-NNNNNN.jsonl   its rejected rows, if any
OUT/errors/part-FFFFF-NNNNNN.jsonl    in place of them, the error file of an OpenAI batch
OUT/_ledger/job.json                  the job that this folder belongs to
OUT/_ledger/query-*.arrow             the result of the query that is the input, and query.json, which names it
OUT/_ledger/shards/FFFFF-NNNNNN.json  the record of a shard; the shard is committed when the record exists
OUT/_ledger/inputs-*.json, scored.json  the files of an input that grows, see `growth.registry`
OUT/_ledger/appended-*.json           what was appended to a table, see `tables.append`
OUT/_ledger/progress/HOST-PID.json    the progress of a process that works on the job
OUT/_ledger/done.json                 the input and all files of a finished job, with their sizes and hashes

Invariants: a file becomes visible only when it is complete. The record, which is written last, commits a shard. A lock
is released when its process dies. A folder holds one job: another model, option or input is refused.

When a job resumes, files that were lost or damaged do not match their record, and their shard is scored again.
Everything is on the disk before the job counts as finished.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.scoring.job import Job, ScoringError
from service.scoring.output.folder import LEDGER, PARTS, PROGRESS_FOLDER, OutputFolder
from service.scoring.output.local_folder import LocalFolder, sha256_of
from service.scoring.output.object_folder import ObjectFolder
from service.scoring.plan import PlannedFile, Shard
from service.scoring.storage.location import Location, exact_location

JOB, DONE, SHARDS = f"{LEDGER}/job.json", f"{LEDGER}/done.json", f"{LEDGER}/shards/"
PROGRESS = f"{PROGRESS_FOLDER}/"
QUERY = f"{LEDGER}/query.json"
# The one file that differs between two runs, so that only its presence is checked.
TIMING = "timing.json"
FINISH = "finish"
POLL_S = 0.2
REMEDY = "choose another --output or delete that folder"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A committed shard: its input, its counts, and the sha256 and bytes of its parts by path below the output."""

    key: str
    file: str
    first_row: int
    scored: int
    rejected: int
    labels: list[int]
    confidence: list[int]
    parts: dict[str, str]
    sizes: dict[str, int]
    # Rows that --where and --sample left out.
    filtered: int = 0
    # The bins of each statistic that is compared with the distributions in the bundle.
    drift: dict[str, list[int]] = field(default_factory=dict)


def open_folder(location: Location) -> OutputFolder:
    """Raises ScoringError if the kind of place cannot be written to."""
    match location.kind:
        case "file":
            return LocalFolder(Path(location.path))
        case "s3" | "gs" | "az":
            return ObjectFolder(location)
        case _:
            raise ScoringError(
                f"--output {location}: {location.scheme} is for input only, write to a folder or a bucket"
            )


class Ledger:
    """`output` is a `Location.uri`. `verify`: files are compared by their hashes also where sizes are enough."""

    def __init__(self, output: str | Path, *, verify: bool = False) -> None:
        self.output = exact_location(str(output))
        self._folder, self._verify = open_folder(self.output), verify
        self._damaged: list[str] = []
        # The largest number of a shard of each file that had a record when the job resumed.
        self._last_shards: dict[int, int] | None = None

    def open_job(self, job: Job, inputs: list[str] | None) -> None:
        """Claim the folder for this job, or check that it already belongs to it. Raises ScoringError otherwise.

        `inputs` names the files; None if they grow.
        """
        named: dict[str, Any] = {} if inputs is None else {"inputs": inputs}
        if job.append_to is not None:
            named["append_to"] = job.table_place
        expected = json.loads(json.dumps({**named, **job.identity()}))
        content = to_json(expected)
        actual = self._read_optional(JOB)
        if actual is None:
            self._folder.prepare()
            self._folder.create(JOB, content)
            actual = self._folder.read(JOB)
        if actual == content:
            return
        stored = self._parse(JOB, actual)
        if stored == expected:
            # Damage that does not change the meaning.
            self._folder.write(JOB, content)
            return
        names = sorted(n for n in stored.keys() | expected.keys() if stored.get(n) != expected.get(n))
        changed = "; ".join(f"{n} was {stored.get(n)!r}, is {expected.get(n)!r}" for n in names)
        pin = ""
        if "version" in names and "model" not in names:
            pin = f"; --model {stored.get('model')}@{stored.get('version')} goes on with the version of before"
        raise ScoringError(f"{self.output} belongs to another job ({changed}): {REMEDY}{pin}")

    def query_result(self, query: str, write: Callable[[Path], None]) -> Location:
        """The stored result of a query, which `write` asks for unless it was stored before; one process at a time.

        Raises ScoringError if the folder belongs to another query or to a job without one, or if the result is lost.
        """
        stored = self._read_optional(QUERY)
        if stored is None:
            if self._read_optional(JOB) is not None:
                raise ScoringError(f"{self.output} belongs to another job (without --query): {REMEDY}")
            self._folder.prepare()
            with self.exclusive():
                stored = self._read_optional(QUERY) or self._store_query(query, write)
        content = self._parse(QUERY, stored)
        if content["query"] != query:
            raise ScoringError(
                f"{self.output} belongs to another job (query was {content['query']!r}, is {query!r}): {REMEDY}"
            )
        file, size, digest = content["file"], content["size"], content["sha256"]
        if not self._folder.is_intact(file, size=size, sha256=digest, verify=self._verify):
            raise ScoringError(f"{self.output.child(file)}, the stored result of the query, is damaged: {REMEDY}")
        return self.output.child(file)

    def _store_query(self, query: str, write: Callable[[Path], None]) -> bytes:
        path = self._folder.work_path(f"{FINISH}.query")
        write(path)
        digest, size = sha256_of(path), path.stat().st_size
        # Locks of a store may be lost, so that two processes store two results; the first record decides.
        name = f"{LEDGER}/query-{digest[:32]}.arrow"
        self._folder.publish({name: path})
        self._folder.create(QUERY, to_json({"query": query, "file": name, "size": size, "sha256": digest}))
        return self._folder.read(QUERY)

    def committed(self, shard: Shard) -> Record | None:
        """The record of a shard whose files are intact, else None. Raises ScoringError if the shard has changed."""
        record = _parse_record(self._read_optional(_record_name(shard)))
        if record is None:
            return None
        if record.key != shard.key:
            raise ScoringError(
                f"the input changed: {shard.title} no longer matches its record in {self.output} ({record.file} from "
                f"row {record.first_row}): {REMEDY}"
            )
        for name, digest in record.parts.items():
            size = record.sizes.get(name, -1)
            if not self._folder.is_intact(name, size=size, sha256=digest, verify=self._verify):
                return None
        return record

    def has_record(self, shard: Shard) -> bool:
        """Whether exactly this shard is recorded."""
        record = _parse_record(self._read_optional(_record_name(shard)))
        return record is not None and record.key == shard.key

    def part_sizes(self) -> Mapping[str, int]:
        """The sizes of all files of the output."""
        return self._folder.sizes()

    def file_numbers(self) -> set[int]:
        """The numbers of the files that have records."""
        return {int(Path(name).stem.partition("-")[0]) for name in self._folder.sizes(SHARDS)}

    def holds_shards(self, file_number: int, shards: int, sizes: Mapping[str, int]) -> bool:
        """Whether the first shards of a file are recorded and their parts have their sizes, with `verify` their hashes.

        Only for shards that a finished job has synced to the disk.
        """
        for number in range(shards):
            record = _parse_record(self._read_optional(f"{SHARDS}{file_number:05d}-{number:06d}.json"))
            if record is None:
                return False
            for name, digest in record.parts.items():
                if sizes.get(name) != record.sizes[name]:
                    return False
                if self._verify and self._folder.sha256(name) != digest:
                    return False
        return True

    def read_document(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the ledger; None if there is none. Raises ScoringError if it is damaged."""
        content = self._read_optional(name)
        return None if content is None else self._parse(name, content)

    def create_document(self, name: str, content: Mapping[str, Any]) -> bool:
        """Write a JSON file of the ledger unless it exists; whether it has this content now."""
        return self._folder.create(name, to_json(content))

    def write_document(self, name: str, content: Mapping[str, Any]) -> None:
        self._folder.write(name, to_json(content), sync=True)

    def holds_document(self, name: str, content: Mapping[str, Any]) -> bool:
        """Whether a JSON file of the ledger has exactly this content."""
        return self._read_optional(name) == to_json(content)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """One process at a time; in a store a process that pauses for long may lose it."""
        while not self._folder.try_lock(FINISH):
            time.sleep(POLL_S)
        try:
            yield
        finally:
            self._folder.unlock(FINISH)

    def try_lock(self, shard: Shard) -> bool:
        """Lock the shard; False if another process holds its lock."""
        return self._folder.try_lock(shard.name)

    def unlock(self, shard: Shard) -> None:
        self._folder.unlock(shard.name)

    def work_path(self, shard: Shard, suffix: str) -> Path:
        """A path that only the process with the shard's lock writes to, and that no process reads."""
        return self._folder.work_path(f"{shard.name}.{suffix}")

    def commit(self, shard: Shard, record: Record, parts: Mapping[str, Path]) -> None:
        """Make the parts (path below the output folder -> written file) visible, then write the record."""
        self._folder.publish(parts)
        self._folder.commit(_record_name(shard), to_json(asdict(record)))

    def records(self) -> Iterator[Record]:
        """Every committed shard, in order."""
        self._folder.preload(SHARDS)
        names = sorted(self._folder.sizes(SHARDS))
        for name, content in zip(names, self._folder.read_all(names), strict=True):
            record = _parse_record(content)
            if record is None:
                raise ScoringError(
                    f"{self.output.child(name)} was damaged while the job ran: the same command repairs it"
                )
            yield record

    def check_planned(self, planned: PlannedFile) -> None:
        """Raise ScoringError if records existed for more shards than the file has."""
        if self._last_shards is None:
            self._last_shards = {}
            for name in sorted(self._folder.sizes(SHARDS)):
                file_number, _, number = Path(name).stem.partition("-")
                self._last_shards[int(file_number)] = int(number)
        if self._last_shards.get(planned.file_number, -1) >= planned.shards:
            raise ScoringError(
                f"the input changed: {planned.file.name} is shorter than what was scored into {self.output}: "
                "choose another --output, or delete it"
            )

    def finish(self, files: Mapping[str, bytes], fingerprints: Mapping[str, str]) -> None:
        """Write the files about the whole job, then what marks it finished; one process at a time."""
        with self.exclusive():
            if not self.is_finished(fingerprints):
                for name, content in files.items():
                    self._folder.write(name, content)
                done = {"input": dict(fingerprints), "files": self._file_digests(files)}
                self._folder.sync()
                self._folder.write(DONE, to_json(done), sync=True)
                self._folder.clear_work()

    def is_finished(self, fingerprints: Mapping[str, str]) -> bool:
        """Whether the job was finished with exactly this input, and its files are still there.

        Sizes are compared, and the hashes of the few files about the whole job; with `verify` the hashes of all files.
        """
        try:
            done = json.loads(self._read_optional(DONE) or b"null")
            expected = {name: (int(size), str(digest)) for name, (size, digest) in done["files"].items()}
            is_same_input = done["input"] == dict(fingerprints)
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        sizes = self._folder.sizes()
        self._damaged = [name for name, file in expected.items() if not self._matches(name, *file, sizes)]
        if not is_same_input or self._damaged:
            return False
        self._folder.clear_work()
        return True

    def summary(self) -> dict[str, Any]:
        """The summary of a finished job."""
        summary: dict[str, Any] = json.loads(self._folder.read("summary.json"))
        return summary

    def resume(self) -> None:
        """Mark the job as unfinished; records that `is_finished` found damaged count as missing."""
        self._folder.delete(DONE)
        for name in self._damaged:
            if name.startswith(SHARDS):
                self._folder.delete(name)
        self._folder.preload(SHARDS)

    def has_finished(self) -> bool:
        """Whether the job was finished, with whatever input."""
        return self._read_optional(DONE) is not None

    def read_job(self) -> dict[str, Any] | None:
        """The job that the folder belongs to, or None."""
        content = self._read_optional(JOB)
        return None if content is None else self._parse(JOB, content)

    def save_progress(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace the progress of one process. It is dropped when the job is finished."""
        self._folder.write(f"{PROGRESS}{name}.json", to_json(dict(content)))

    def read_progress(self) -> list[dict[str, Any]]:
        """The progress of each process that has worked on the job since it was finished last."""
        try:
            names = sorted(self._folder.sizes(PROGRESS))
        except FileNotFoundError:  # the job is being finished
            return []
        contents = zip(names, self._folder.read_all(names), strict=True)
        return [self._parse(name, content) for name, content in contents if content is not None]

    def close(self) -> None:
        self._folder.close()

    def _file_digests(self, files: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
        """The size and sha256 of every file of the job; the parts are taken from the records."""
        self._folder.preload(SHARDS)
        names = sorted(self._folder.sizes(SHARDS))
        contents = zip(names, self._folder.read_all(names), strict=True)
        documents = {JOB: self._folder.read(JOB), **files, **{name: content or b"" for name, content in contents}}
        digests = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in documents.items()}
        if TIMING in digests:
            digests[TIMING] = (0, "")
        for name in names:
            if record := _parse_record(documents[name]):
                digests |= {part: (record.sizes[part], digest) for part, digest in record.parts.items()}
        return digests

    def _matches(self, name: str, size: int, digest: str, sizes: Mapping[str, int]) -> bool:
        if name == TIMING:
            return self._has_timing()
        if sizes.get(name) != size:
            return False
        is_counted = name.startswith((SHARDS, *(f"{folder}/" for folder in PARTS)))
        with contextlib.suppress(FileNotFoundError):
            return (is_counted and not self._verify) or self._folder.sha256(name) == digest
        return False

    def _has_timing(self) -> bool:
        try:
            return isinstance(json.loads(self._read_optional(TIMING) or b""), dict)
        except ValueError:
            return False

    def _read_optional(self, name: str) -> bytes | None:
        try:
            return self._folder.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _parse(self, name: str, content: bytes) -> dict[str, Any]:
        try:
            parsed = json.loads(content)
            if not isinstance(parsed, dict):
                raise ValueError("expected an object")
        except ValueError as error:
            message = f"{self.output.child(name)} is damaged: {error}; delete {self.output} and start again"
            raise ScoringError(message) from error
        return parsed


def _record_name(shard: Shard) -> str:
    return f"{SHARDS}{shard.name}.json"


def _parse_record(content: bytes | None) -> Record | None:
    """None if the record does not exist or is damaged."""
    try:
        return None if content is None else Record(**json.loads(content))
    except (ValueError, TypeError):
        return None


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
