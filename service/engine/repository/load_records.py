"""What the workers of one host know of each version on disk: proven, refused, being loaded, or fatal to a worker.

The records of a host lie in a folder that its workers share, so a version is proven once for all of them, and a worker
that dies while it loads a version leaves a mark. Invariant: a record belongs to the files as they were scanned; if they
change, it is not used. A folder that cannot be written costs only repeated work: the records stay in memory.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from service.engine.process.identity import is_alive, process_identity
from service.engine.repository.scan import Fingerprint

# A worker may be killed for other reasons while it loads, so the first death is no proof. After it, the version is
# loaded when nothing else is, and a second death is.
MAX_DEATHS = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of the checks in a child process: `digest` of what was proven there, or the reason of a failure.

    `max_inline_bytes` is what the child has measured of the tokenizer, see `Model`.
    """

    digest: str | None = None
    failure: str | None = None
    max_inline_bytes: int | None = None


class ProofBusyError(RuntimeError):
    """Another worker proves these files at the moment."""


class LoadRecords:
    """Safe to use from any thread, and from any process that shares the folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._outcomes: dict[str, Outcome] = {}
        self._me = process_identity(os.getpid())
        self._has_warned = False

    def outcome(self, key: str) -> Outcome | None:
        """Return the recorded result for these files, if any."""
        if self._folder is not None:
            with suppress(OSError, ValueError, TypeError):
                self._outcomes[key] = Outcome(**json.loads((self._folder / f"{key}.outcome").read_bytes()))
        return self._outcomes.get(key)

    def store(self, key: str, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        if self._folder is not None:
            with self._tolerating():
                temporary = self._folder / f"{key}.{self._me}.temporary"
                temporary.write_text(json.dumps(asdict(outcome)))
                temporary.replace(self._folder / f"{key}.outcome")

    def discard(self, key: str) -> None:
        """Drop everything that is known of these files."""
        self._outcomes.pop(key, None)
        if self._folder is not None:
            for path in self._folder.glob(f"{key}.*"):
                if path.suffix != ".lock":
                    with suppress(OSError):
                        path.unlink()

    @contextmanager
    def proving(self, key: str) -> Iterator[None]:
        """Be the only worker that proves these files; raises ProofBusyError. Ends with the process, if not before."""
        if self._folder is None:
            yield
            return
        file = None
        with self._tolerating():
            file = (self._folder / f"{key}.lock").open("w")
        try:
            if file is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ProofBusyError from None
            yield
        finally:
            if file is not None:
                file.close()

    @contextmanager
    def loading(self, key: str) -> Iterator[None]:
        """Leave a mark for as long as this process loads these files."""
        if self._folder is None:
            yield
            return
        mark = self._folder / f"{key}.{self._me}.loading"
        with self._tolerating():
            mark.touch()
        try:
            yield
        finally:
            with suppress(OSError):
                mark.unlink()

    def deaths(self, key: str) -> int:
        """Return how many workers have died while they loaded these files."""
        if self._folder is None:
            return 0
        for mark in self._folder.glob(f"{key}.*.loading"):
            if not is_alive(mark.name.split(".")[1]):
                with suppress(OSError):
                    mark.rename(mark.with_suffix(".died"))
        return sum(1 for _ in self._folder.glob(f"{key}.*.died"))

    def close(self) -> None:
        """Remove the marks of this process, which ends for another reason."""
        if self._folder is not None:
            for mark in self._folder.glob(f"*.{self._me}.loading"):
                with suppress(OSError):
                    mark.unlink()

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Do without the folder while it fails, and say so once."""
        try:
            yield
        except OSError as error:
            if not self._has_warned:
                warn_unshared(f"cannot write to {self._folder}: {error.strerror}")
            self._has_warned = True


def warn_unshared(reason: str) -> None:
    """Log what the records cannot do without a folder."""
    log.warning(
        "%s; each worker proves every version itself, and a version that kills a worker is not remembered", reason
    )


def record_key(name: str, version: str | None, fingerprint: Fingerprint) -> str:
    """Return the key of the records of these files."""
    return hashlib.sha256(repr((name, version, fingerprint)).encode()).hexdigest()[:32]
