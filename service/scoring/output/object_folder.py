"""An output folder in an object store: no renames and no locks, but each object is written as a whole or not at all.

_ledger/claims/FFFFF-NNNNNN.json   who scores a shard

Parts are written first; they may be written twice, because a shard's bytes follow from its key. The record of the
shard, created if it is absent, commits it. A store that does not honour conditional writes is refused.
"""

import hashlib
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from service.scoring.job import ScoringError
from service.scoring.output.claims import Claims, version_of
from service.scoring.output.folder import LEDGER, PROGRESS_FOLDER
from service.scoring.storage.location import Location
from service.scoring.storage.object_store import open_store, store_errors

# Larger parts are sent in several requests; those of a failed upload are removed.
SINGLE_PUT_BYTES = 64 << 20
UPLOAD_BYTES, UPLOADS = 16 << 20, 4
READERS = 16


class ObjectFolder:
    def __init__(self, location: Location) -> None:
        self._location, self._store = location, open_store(location)
        self._claims = Claims(location.child(f"{LEDGER}/claims"))
        self._preloaded: dict[str, bytes] = {}
        self._listed: dict[str, int] | None = None
        self._prefix: str | None = None
        self._written: dict[str, IO[bytes]] = {}

    def prepare(self) -> None:
        others = [name for name in self.sizes() if not name.startswith(f"{LEDGER}/")]
        if others:
            raise ScoringError(f"--output {self._location} is not empty ({others[0]}) and holds no scoring job")
        self._check_conditional_writes()

    def read(self, name: str) -> bytes:
        if self._prefix is not None and name.startswith(self._prefix):
            if name not in self._preloaded:
                raise FileNotFoundError(self._place(name))
            return self._preloaded[name]
        with store_errors(self._place(name)):
            return bytes(self._store.get(self._path(name)).bytes())

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        def read(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(READERS, thread_name_prefix="records") as pool:
            yield from pool.map(read, names)

    def preload(self, prefix: str) -> None:
        self._prefix = self._listed = None
        listed = self._list("")
        names = [name for name in listed if name.startswith(prefix)]
        contents = zip(names, self.read_all(names), strict=True)
        self._preloaded = {name: content for name, content in contents if content is not None}
        self._prefix, self._listed = prefix, listed

    def create(self, name: str, content: bytes) -> bool:
        if self._create(name, content):
            return True
        with store_errors(self._place(name)):
            return bytes(self._store.get(self._path(name)).bytes()) == content

    def write(self, name: str, content: bytes, *, sync: bool = False) -> None:  # noqa: ARG002 - it always does
        with store_errors(self._place(name)):
            self._store.put(self._path(name), content, use_multipart=False)

    def commit(self, name: str, content: bytes) -> None:
        """Create the record; one that exists and is not equal was damaged, and is replaced."""
        if not self.create(name, content):
            self.write(name, content)

    def publish(self, parts: Mapping[str, Path]) -> None:
        for name, written in parts.items():
            is_large = written.stat().st_size > SINGLE_PUT_BYTES
            with store_errors(self._place(name)):
                self._store.put(
                    self._path(name),
                    written,
                    use_multipart=is_large,
                    chunk_size=UPLOAD_BYTES,
                    max_concurrency=UPLOADS,
                )

    def delete(self, name: str) -> None:
        with store_errors(self._place(name)):
            try:
                self._store.delete(self._path(name))
            except FileNotFoundError:
                return

    def sizes(self, prefix: str = "") -> dict[str, int]:
        if self._listed is not None:
            return {name: size for name, size in self._listed.items() if name.startswith(prefix)}
        return self._list(prefix)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with store_errors(self._place(name)):
            for chunk in self._store.get(self._path(name)):
                digest.update(chunk)
        return digest.hexdigest()

    def is_intact(self, name: str, *, size: int, sha256: str, verify: bool) -> bool:
        try:
            if verify:
                return self.sha256(name) == sha256
            if self._listed is not None:
                return self._listed.get(name) == size
            with store_errors(self._place(name)):
                return bool(self._store.head(self._path(name))["size"] == size)
        except FileNotFoundError:
            return False

    def work_path(self, name: str) -> Path:
        """A file without a name, so that a killed process leaves nothing behind."""
        if name not in self._written:
            self._written[name] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by unlock
        return Path(f"/proc/self/fd/{self._written[name].fileno()}")

    def clear_work(self) -> None:
        for name in [*self._list(f"{LEDGER}/claims/"), *self._list(f"{PROGRESS_FOLDER}/")]:
            self.delete(name)

    def try_lock(self, name: str) -> bool:
        return self._claims.try_claim(name)

    def unlock(self, name: str) -> None:
        for work_name in [work_name for work_name in self._written if work_name.startswith(f"{name}.")]:
            self._written.pop(work_name).close()
        self._claims.release(name)

    def sync(self) -> None:
        """An answered request is on the disks of the store."""

    def close(self) -> None:
        self._claims.close()
        for file in self._written.values():
            file.close()
        self._written = {}

    def _list(self, prefix: str) -> dict[str, int]:
        folder = f"{self._location.path}/" if self._location.path else ""
        with store_errors(str(self._location)):
            pages = self._store.list((folder + prefix).rstrip("/") or None, chunk_size=1000)
            return {item["path"].removeprefix(folder): item["size"] for page in pages for item in page}

    def _create(self, name: str, content: bytes) -> bool:
        """Create an object; False if it exists."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 - the store is open

        with store_errors(self._place(name)):
            try:
                self._store.put(self._path(name), content, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def _check_conditional_writes(self) -> None:
        """Raise ScoringError unless the store refuses to create an object twice and to replace an old version."""
        from obstore.exceptions import PreconditionError  # noqa: PLC0415 - the store is open

        name = f"{LEDGER}/claims/probe-{uuid.uuid4().hex}"
        self.create(name, b"1")
        is_refused = not self._create(name, b"2")
        with store_errors(self._place(name)):
            version = version_of(self._store.head(self._path(name)))
            self._store.put(self._path(name), b"3", mode=version)
            try:
                self._store.put(self._path(name), b"4", mode=version)
                is_refused = False
            except PreconditionError:
                pass
        self.delete(name)
        if not is_refused:
            raise ScoringError(
                f"--output {self._location}: the store ignores the conditions of writes (If-None-Match, If-Match), so "
                "that it cannot promise each row exactly once; choose another store or a local folder"
            )

    def _path(self, name: str) -> str:
        return self._location.child(name).path

    def _place(self, name: str) -> str:
        return str(self._location.child(name))
