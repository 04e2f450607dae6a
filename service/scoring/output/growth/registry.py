"""The input files of a job whose input grows (`--new-only`): their numbers, and which of them are scored.

_ledger/inputs-NNNNNN.json   the names that run N added; a file's number is its place in all of these lists
_ledger/scored.json          each file that was scored to its end, with its fingerprint and number of shards

Invariants: a name has one number for ever. A file in `scored.json` is not read again while its fingerprint is the same
and the output holds its shards. Without its entry it is read again, and its shards are compared with their records.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from service.scoring.input.files import InputFile
from service.scoring.input.schema import common_type
from service.scoring.job import Job, ScoringError, digest
from service.scoring.output.ledger import Ledger, to_json
from service.scoring.plan import PlannedFile, ReadError, SharedShard, plan
from service.scoring.storage.location import exact_location

SCORED = "_ledger/scored.json"
# A file without content may have as many bytes, because gzip stores its name.
MAX_EMPTY_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """A file that was scored to its end. `changed` is the fingerprint of a later version that has other rows."""

    fingerprint: str
    shards: int
    rows: int
    passed_over: dict[str, int] = field(default_factory=dict)
    changed: str = ""


class InputRegistry:
    """`names` by number, as `increments` of runs; `scored` by name.

    `copied_schema` is that of the first run, or None before it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.names: list[str] = []
        self.increments: list[list[str]] = []
        self.copied_schema: str | None = None
        self._num_lists = 0
        self._read_names()
        self.scored = dict[str, ScoredFile]()
        # A damaged file costs time only: everything is read and compared again.
        with suppress(ScoringError, TypeError):
            content = ledger.read_document(SCORED) or {}
            self.scored = {name: ScoredFile(**entry) for name, entry in content.items()}
        self.pending: list[InputFile] = []
        self.changed: list[str] = []
        self.deleted: list[str] = []

    def unscored(self, files: Sequence[InputFile]) -> Sequence[InputFile]:
        """The files that decide about the columns of this run: those to be scored, else one that has not changed.

        New files that may all be empty decide about nothing, so that one is added.
        """
        found = [file for file in files if file.name not in self.scored]
        same = [
            file
            for file in files
            if file.name in self.scored and self.scored[file.name].fingerprint == file.fingerprint
        ]
        # A file without rows may have no columns.
        same.sort(key=lambda file: not self.scored[file.name].rows)
        if any(file.size > MAX_EMPTY_BYTES for file in found):
            return found
        return [*found, *same[:1]] or files[:1]

    def with_schema(self, job: Job) -> Job:
        """The job with the schema of its first run. Raises ScoringError if the files of this run do not fit it."""
        if self.copied_schema is None:
            return job
        first = Job.model_validate({**job.model_dump(), "copied_schema": self.copied_schema})
        if job.copied.names != first.copied.names:
            raise ScoringError(
                f"--new-only: the new files would give the columns {', '.join(job.copied.names)}, those scored before "
                f"{', '.join(first.copied.names)}: name the columns with --keep, or choose another --output"
            )
        for stored in first.copied:
            kind = job.copied.field(stored.name).type
            if common_type(stored.type, kind) != stored.type:
                raise ScoringError(
                    f"--new-only: column {stored.name!r} of the new files is {kind}, of the files scored before it is "
                    f"{stored.type}, which does not hold it: choose another --output for them, or cast it"
                )
        return first

    def update(self, job: Job, files: Sequence[InputFile]) -> None:
        """Give numbers to new files, and find out which files are to be scored, have changed or were deleted."""
        recorded = self._ledger.file_numbers()
        self._read_names()
        if max(recorded, default=-1) >= len(self.names):
            raise ScoringError(f"{self._ledger.output}: the lists of its input files are lost: choose another --output")
        self._register(job, files)
        sizes, listed = self._ledger.part_sizes(), {file.name: file for file in files}
        for file in files:
            entry = self.scored.get(file.name)
            if entry is not None and file.fingerprint not in {entry.fingerprint, entry.changed}:
                entry = self._compared(job, file, entry)
            if entry is None:
                self.pending.append(file)
            elif file.fingerprint == entry.changed:
                self.changed.append(file.name)
        changed = set(self.changed)
        for number, name in enumerate(self.names):
            entry = self.scored.get(name)
            if entry is not None and not self._ledger.holds_shards(number, entry.shards, sizes):
                if name not in listed or name in changed:
                    state = "was changed" if name in listed else "was deleted"
                    raise ScoringError(f"{name}: its predictions are lost or damaged, and the file {state}: restore it")
                del self.scored[name]
                self.pending.append(listed[name])
            elif entry is None and name not in listed and number in recorded:
                raise ScoringError(f"{name}: the file was deleted before it was scored to its end: restore it")
        self.deleted = [name for name in self.names if name in self.scored and name not in listed]
        numbers = self.numbers
        self.pending.sort(key=lambda file: numbers[file.name])

    @property
    def numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @property
    def passed_over(self) -> Counter[str]:
        """What was passed over in the files that are scored already, by suffix."""
        return sum((Counter(entry.passed_over) for entry in self.scored.values()), Counter())

    def add_scored(self, planned: PlannedFile, rows: int) -> None:
        """A file of this run was planned to its end; it counts once `documents` are written."""
        self.scored[planned.file.name] = ScoredFile(
            fingerprint=planned.file.fingerprint,
            shards=planned.shards,
            rows=rows,
            passed_over=dict(planned.passed_over),
        )

    def check_alone(self) -> None:
        """Raise ScoringError if another process has added files meanwhile, which it scores."""
        if self._read_names():
            raise ScoringError("another process has added files to the job: the same command finishes it")

    def documents(self) -> dict[str, bytes]:
        """The files of the registry, to be written when everything is scored."""
        lists = {name: to_json(content) for name, content in self._lists(0)}
        entries = {name: asdict(entry) for name, entry in self.scored.items()}
        return {**lists, SCORED: to_json(entries)}

    def _register(self, job: Job, files: Sequence[InputFile]) -> None:
        while True:
            known = set(self.names)
            new = [file.name for file in files if file.name not in known]
            if not new:
                return
            content = {"files": new, "copied_schema": job.copied_schema}
            content["sha256"] = digest(*new, job.copied_schema)
            self._ledger.create_document(_list_name(self._num_lists), content)
            self._read_names()

    def _read_names(self) -> bool:
        """Read the lists that were added since; whether there are any."""
        found = list(self._lists(self._num_lists))
        for name, content in found:
            if content.get("sha256") != digest(*content.get("files", ()), content.get("copied_schema", "")):
                raise ScoringError(f"{self._ledger.output.child(name)} is damaged: choose another --output")
            self.names += content["files"]
            self.increments.append(content["files"])
            self.copied_schema = content["copied_schema"] if self.copied_schema is None else self.copied_schema
        self._num_lists += len(found)
        return bool(found)

    def _lists(self, first: int) -> Iterator[tuple[str, dict[str, Any]]]:
        while (content := self._ledger.read_document(_list_name(first))) is not None:
            yield _list_name(first), content
            first += 1

    def _compared(self, job: Job, file: InputFile, entry: ScoredFile) -> ScoredFile:
        """The entry of a file that was written again: with equal rows it has not changed."""
        planned = list(plan({0: job}, [file], self.numbers))
        is_same = not any(isinstance(item, ReadError) for item in planned) and len(planned) == entry.shards + 1
        is_same = is_same and all(
            self._ledger.has_record(item.first) for item in planned if isinstance(item, SharedShard)
        )
        self.scored[file.name] = (
            replace(entry, fingerprint=file.fingerprint, changed="")
            if is_same
            else replace(entry, changed=file.fingerprint)
        )
        return self.scored[file.name]


def check_growing(files: Sequence[InputFile], *, limit: int | None) -> None:
    """Raise ScoringError for an input whose files have no names of their own for ever."""
    if limit is not None:
        raise ScoringError("--new-only, --limit: the first rows of an input that grows change; leave one out")
    for file in files:
        if file.format in {"images", "delta", "iceberg", "openai"}:
            reason = {
                "images": "a folder of images is one input: put new images into tars",
                "openai": "the ids of an OpenAI batch are compared within one job: choose an --output for each batch",
            }.get(file.format, "a table is read at one version: score each version into an --output of its own")
            raise ScoringError(f"--new-only: {file.name}: {reason}")
        if file.name == str(exact_location(file.uri)):
            raise ScoringError(
                f"--new-only: {file.name}: two inputs hold a file of this name: pass the folder above both"
            )


def _list_name(number: int) -> str:
    return f"_ledger/inputs-{number:06d}.json"
