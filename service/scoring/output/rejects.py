"""The rejected rows of one shard: a file with a line for each, and a bounded number of lines in the log."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from service.scoring.input.rows import Rows
from service.scoring.job import Job
from service.scoring.output.completions import error_line
from service.scoring.output.join import row_ids
from service.scoring.output.sinks import to_json
from service.scoring.plan import Shard
from service.scoring.scorers.scorer import ScoredRows

# Rejected rows of a shard that are logged one by one. The file lists all of them.
LOGGED_ROWS = 20
# The longest file name or reason in the log. A line then stays below 4,096 bytes, which a pipe that several workers
# write to takes as one piece.
LOGGED_CHARS = 300

log = logging.getLogger(__name__)


class RejectFile(AbstractContextManager["RejectFile"]):
    """JSON Lines with the position and the reason of each rejected row; no file if there are none.

    Those of an OpenAI batch are in the format of its error file, and in the folder `errors`. Lines of the log begin
    with `model`, which says for which of several models they are.
    """

    def __init__(self, path: Path, job: Job, shard: Shard, *, model: str = "") -> None:
        self.path, self.count = path, 0
        self.folder = "errors" if job.answers_as_openai else "rejects"
        self._job, self._shard = job, shard
        self._title = f"{model and f'{model}: '}shard {shard.name}: {loggable(shard.file.name)}"
        self._file: IO[bytes] | None = None

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Close the file, and log how many rows were rejected beyond those that are logged one by one."""
        if self._file is not None:
            self._file.close()
        unlisted = self.count - LOGGED_ROWS
        if unlisted > 0 and error is None:
            path = f"{self.folder}/part-{self._shard.name}.jsonl"
            log.warning("%s: %d more rejected, see %s", self._title, unlisted, path)

    def write(self, rows: Rows, scored: ScoredRows) -> None:
        indexes = sorted(scored.faults)
        for i, row_id in zip(indexes, row_ids(self._job, rows, indexes), strict=True):
            entry = {"file": self._shard.file.name, "row": int(rows.numbers[i]), "shard": self._shard.name}
            if rows.lines is not None:
                entry["line"] = rows.lines[i]
            if self._job.id_column:
                entry[self._job.id_column if self._job.id_column not in entry else "id"] = row_id
            if self._file is None:
                self._file = self.path.open("wb")
            reason = scored.faults[i].encode("utf-8", "backslashreplace").decode()
            line = {**entry, "reason": reason}
            if self._job.answers_as_openai:
                line = error_line(self._shard.file, rows, i, row_id, scored)
            self._file.write(to_json(line) + b"\n")
            self.count += 1
            if self.count <= LOGGED_ROWS:
                log.warning("%s, row %d: %s", self._title, rows.numbers[i], loggable(scored.faults[i]))


def loggable(text: str) -> str:
    """Escape what is not printable and cut to LOGGED_CHARS, so that input cannot forge or flood lines of the log."""
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: LOGGED_CHARS + 1])
    return escaped if len(escaped) <= LOGGED_CHARS else escaped[: LOGGED_CHARS - 1] + "…"
