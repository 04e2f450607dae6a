"""What lies in the folder of bundles, as far as it takes to notice a change.

Invariant: a look reads `current` and the directory, never a bundle's files; two looks with equal stamps saw the same.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from service.bundle import current_version
from service.errors import BundleError
from service.manifest import MAX_MODEL_NAME, MODEL_NAME

CURRENT = "current"
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The version that a model's `current` names, or the problem with it."""

    version: str | None
    problem: str | None
    stamp: Stamp


def model_names(root: Path) -> tuple[list[str], list[str]]:
    """The folders of models, and those that have names that no model may have, hidden ones aside; raises OSError."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [name for name in folders if re.fullmatch(MODEL_NAME, name) and len(name) <= MAX_MODEL_NAME]
    return names, [name for name in folders if name not in names]


def look(folder: Path) -> Found:
    """The model in this folder, now."""
    stamp = _stamp([folder / CURRENT])  # before it is read: what changes in between is seen as a change the next time
    try:
        version = current_version(folder)
    except BundleError as error:
        return Found(version=None, problem=str(error), stamp=stamp)
    try:
        files = sorted((folder / version).iterdir())
    except OSError:
        files = []  # opening it will say what is wrong
    return Found(version=version, problem=None, stamp=stamp + _stamp(files))


def _stamp(paths: list[Path]) -> Stamp:
    stamp = []
    for path in paths:
        try:
            found = path.stat()  # through a link, such as Kubernetes makes for `current` in a mounted ConfigMap
        except OSError:
            continue
        stamp.append((path.name, found.st_size, found.st_mtime_ns, found.st_ino))
    return tuple(stamp)
