"""Claims on the shards of a job in an object store, which has no locks.

A claim is an object that its owner creates if it is absent, renews, and deletes. Another process takes it over if the
owner is a dead process of the same machine, or if it was not renewed for LEASE_S seconds by the other's own clock.
Clocks are never compared. Invariant: claims save work only. If two processes score one shard, for example after a long
pause, they write equal bytes.
"""

import contextlib
import functools
import json
import os
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.scoring.storage.location import Location
from service.scoring.storage.object_store import open_store, store_errors

LEASE_S = 30.0
RENEW_S = 6.0


@dataclass(kw_only=True)
class _Claim:
    """A claim of this process, and the version of its object."""

    token: str
    version: dict[str, str]
    renewals: int = 0


class Claims:
    def __init__(self, folder: Location) -> None:
        self._folder, self._store = folder, open_store(folder)
        self._held: dict[str, _Claim] = {}
        # Claims of others: the version that was seen, and since when.
        self._seen: dict[str, tuple[dict[str, str], float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._renewer: threading.Thread | None = None

    def try_claim(self, name: str) -> bool:
        """Claim a shard; False if another process holds it."""
        with self._lock, store_errors(self._place(name)):
            claim = _Claim(token=uuid.uuid4().hex, version={})
            mode: Any = "create"
            if other := self._other(name):
                if not self._may_take(name, *other):
                    return False
                mode = other[1]
            if not self._write(name, claim, mode):
                return False
            self._seen.pop(name, None)
            self._held[name] = claim
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew_all, name="claims", daemon=True)
                self._renewer.start()
            return True

    def release(self, name: str) -> None:
        """Give a claim back; one that was lost is left alone."""
        with self._lock:
            if self._held.pop(name, None) is not None:
                # A claim that cannot be deleted expires.
                with contextlib.suppress(OSError), store_errors(self._place(name)):
                    self._store.delete(self._path(name))

    def close(self) -> None:
        self._closed.set()
        for name in list(self._held):
            self.release(name)

    def _other(self, name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """The content and version of a claim; None if there is none."""
        try:
            result = self._store.get(self._path(name))
            return json.loads(bytes(result.bytes())), version_of(result.meta)
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            return {}, version_of(result.meta)

    def _may_take(self, name: str, content: dict[str, Any], version: dict[str, str]) -> bool:
        if _is_dead(content.get("owner")):
            return True
        seen, since = self._seen.get(name, ({}, 0.0))
        if seen != version:
            self._seen[name] = (version, time.monotonic())
            return False
        return time.monotonic() - since > LEASE_S

    def _write(self, name: str, claim: _Claim, mode: Any) -> bool:
        """Write a claim if its object is what `mode` expects; every write has other bytes, hence another ETag."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 - the store is open

        content = {"owner": _this_process(), "token": claim.token, "renewals": claim.renewals}
        encoded = json.dumps(content).encode()
        try:
            claim.version = version_of(self._store.put(self._path(name), encoded, mode=mode))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # A request that was repeated may have met its own first try.
            other = self._other(name)
            if other is None or other[0] != content:
                return False
            claim.version = other[1]
        return True

    def _renew_all(self) -> None:
        while not self._closed.wait(RENEW_S):
            for name in list(self._held):
                # The next try may succeed.
                with contextlib.suppress(OSError):
                    self._renew(name)

    def _renew(self, name: str) -> None:
        """Write a claim again; one that another process has taken over is no longer held."""
        with self._lock, store_errors(self._place(name)):
            if claim := self._held.get(name):
                claim.renewals += 1
                if not self._write(name, claim, claim.version):
                    del self._held[name]

    def _path(self, name: str) -> str:
        return self._folder.child(f"{name}.json").path

    def _place(self, name: str) -> str:
        return str(self._folder.child(f"{name}.json"))


def version_of(meta: Any) -> dict[str, str]:
    """What identifies the version of an object: the mode of a conditional write."""
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _is_dead(owner: Any) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    if not isinstance(owner, dict) or owner.get("machine") != _this_process()["machine"]:
        return False
    return _started_at(int(owner["pid"])) != owner["started"]


@functools.cache
def _process(pid: int) -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # A container has process numbers of its own.
    return {"machine": f"{boot} {os.readlink('/proc/self/ns/pid')}", "pid": pid, "started": _started_at(pid)}  # noqa: PTH115 - not a path


def _this_process() -> dict[str, Any]:
    return _process(os.getpid())


def _started_at(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A process that is dead and not yet waited for is in the state Z or X.
    return None if fields[0] in "ZX" else fields[19]
