"""The models that there are, each with its versions, and whether the service may call itself ready.

Invariant: an entry is replaced as a whole, never changed, so a read from any thread sees one consistent moment and
takes no lock.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from service.engine.repository.entry import Entry
from service.errors import EkibenError

Change = Callable[[Entry], Entry]


class Catalog:
    """`trouble` says what is wrong with the folder of bundles as a whole."""

    def __init__(self, trouble: str) -> None:
        self.trouble: str | None = trouble
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        """Raises EkibenError unknown-model."""
        entry = self._entries.get(name)
        if entry is None:
            raise EkibenError("unknown-model", f"no model {name!r}; there are: {', '.join(self._entries) or 'none'}")
        return entry

    def find(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def names(self) -> list[str]:
        return list(self._entries)

    def add(self, name: str, *, required: bool) -> None:
        """A model that is there now; one that is known already stays as it is, one that was gone comes back."""
        with self._lock:
            known = self._entries.get(name)
            if known is None:
                self._entries = dict(sorted({**self._entries, name: Entry(name=name, required=required)}.items()))
            elif known.gone:
                self._entries[name] = replace(known, gone=False, required=required, stamp=None)

    def remove(self, name: str) -> None:
        with self._lock:
            self._entries = {key: entry for key, entry in self._entries.items() if key != name}

    def update(self, name: str, change: Change) -> Entry:
        with self._lock:
            entry = self._entries[name] = change(self._entries[name])
        return entry

    def not_ready_because(self) -> str | None:
        """Why the service is not ready, or None if it is.

        It is ready when a model is READY and none of those that it needs is missing: those that were there at the
        start, and those that have been READY, unless they were unloaded or removed since.
        """
        entries = [entry for entry in self.all() if not entry.gone]
        missing = [entry for entry in entries if entry.required and entry.wanted and entry.model is None]
        if missing:
            return "; ".join(map(_why, missing))
        if any(entry.model is not None for entry in entries):
            return None
        return self.trouble or "; ".join(map(_why, entries)) or "no model is there"


def _why(entry: Entry) -> str:
    return entry.shown.reason or f"{entry.name} is {entry.shown.state}"
