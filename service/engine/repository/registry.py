"""The registry of all models with their versions; it also decides whether the service is ready.

Invariant: entries are never modified but replaced as a whole, so every thread reads a consistent state without a lock.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from service.engine.repository.entry import ModelEntry
from service.engine.repository.scan import CANDIDATE
from service.errors import EkibenError


@dataclass(frozen=True, kw_only=True)
class ReadyWhen:
    """Which models have to be READY: all that are required, or those of these names, or any one."""

    all_models: bool = False
    names: frozenset[str] = frozenset()


ALL_MODELS = ReadyWhen(all_models=True)


class ModelRegistry:
    """`folder_error` describes a problem with the folder of bundles as a whole, or is None."""

    def __init__(self, folder_error: str, ready_when: ReadyWhen = ALL_MODELS) -> None:
        self.folder_error: str | None = folder_error
        self._ready_when = ready_when
        self._entries: dict[str, ModelEntry] = {}
        self._lock = threading.Lock()
        self.has_candidates = False

    def __getitem__(self, name: str) -> ModelEntry:
        """Return the entry of this model; raises EkibenError unknown-model."""
        entry = self._entries.get(name)
        if entry is None:
            raise EkibenError("unknown-model", f"no model {name!r}; available: {', '.join(self._entries) or 'none'}")
        return entry

    def get(self, name: str) -> ModelEntry | None:
        return self._entries.get(name)

    def entries(self) -> list[ModelEntry]:
        return list(self._entries.values())

    def names(self) -> list[str]:
        return list(self._entries)

    def add(self, name: str, *, required: bool) -> None:
        """Add a new model, or restore a removed one; an existing model stays unchanged."""
        with self._lock:
            entry = self._entries.get(name) or ModelEntry(name=name, removed=True)
            if entry.removed:
                entry = replace(entry, removed=False, required=required, fingerprint=None)
                self._entries = dict(sorted({**self._entries, name: entry}.items()))
                self._note_candidates()

    def remove(self, name: str) -> None:
        with self._lock:
            self._entries.pop(name, None)
            self._note_candidates()

    def _note_candidates(self) -> None:
        self.has_candidates = any(name.endswith(CANDIDATE) for name in self._entries)

    def update(self, name: str, change: Callable[[ModelEntry], ModelEntry]) -> ModelEntry | None:
        """Replace the entry by `change(entry)` and return the new entry; None if the model was removed meanwhile."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                entry = self._entries[name] = change(entry)
        return entry

    def not_ready_reason(self) -> str | None:
        """Return why the service is not ready, or None when at least one model and every required model is READY."""
        entries = [entry for entry in self.entries() if not entry.removed and not entry.name.endswith(CANDIDATE)]
        if absent := sorted(self._ready_when.names - {entry.name for entry in entries}):
            return "; ".join(f"{name}: no such model folder, but EKIBEN_READY_WHEN names it" for name in absent)
        unavailable = [entry for entry in entries if self._is_required(entry) and entry.model is None]
        if unavailable:
            return _join_reasons(unavailable)
        if any(entry.model is not None for entry in entries):
            return None
        return self.folder_error or _join_reasons(entries) or "there is no model"

    def _is_required(self, entry: ModelEntry) -> bool:
        if self._ready_when.names:
            return entry.name in self._ready_when.names
        return self._ready_when.all_models and entry.required and entry.desired


def _join_reasons(entries: list[ModelEntry]) -> str:
    return "; ".join(entry.display_version.not_ready_reason for entry in entries)
