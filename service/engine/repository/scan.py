"""Scan the folder of bundles for changes.

`NAME/current` names the version of a model that serves, and `NAME/candidate`, if there is one, a version to be compared
with it, which the registry has under the name NAME@candidate. Invariant: a scan lists folders and opens no file but
these two. Scans with equal fingerprints saw the same files.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.bundle import current_version, open_manifest
from service.errors import BundleError
from service.manifest import MAX_MODEL_NAME, MODEL_DATA, MODEL_NAME

# Ends the name of a candidate; no name of a model has an @.
CANDIDATE = "@candidate"
Fingerprint = tuple[tuple[str, int, int, int], ...]  # name, bytes, ctime in ns and inode of each file


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """The version that a model's `current` or `candidate` names, or the problem with that file."""

    version: str | None
    problem: BundleError | None
    fingerprint: Fingerprint

    @property
    def num_bytes(self) -> int:
        """The size of the files that are read into memory."""
        return sum(size for name, size, _, _ in self.fingerprint if name != MODEL_DATA)

    @property
    def mapped_bytes(self) -> int:
        """The size of the data file, which is mapped instead."""
        return sum(size for name, size, _, _ in self.fingerprint if name == MODEL_DATA)


def model_names(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of models and candidates, and the folders whose names are invalid; raises OSError.

    Hidden folders are neither.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [name for name in folders if re.fullmatch(MODEL_NAME, name) and len(name) <= MAX_MODEL_NAME]
    candidates = [f"{name}{CANDIDATE}" for name in names if (root / name / "candidate").exists()]
    return sorted(names + candidates), [name for name in folders if name not in names]


def place_of(root: Path, name: str) -> tuple[Path, str]:
    """Return the folder of a model or candidate, and the file in it that names the version."""
    return root / name.removesuffix(CANDIDATE), "candidate" if name.endswith(CANDIDATE) else "current"


def allows_tf32(root: Path) -> bool:
    """Return whether there are models and candidates, and all allow TF32; what cannot be read does not.

    This reads their manifests, and ends at the first that does not.
    """
    try:
        names, _ = model_names(root)
        places = [place_of(root, name) for name in names]
        return bool(names) and all(
            open_manifest(folder / current_version(folder, pointer)).allows_tf32 for folder, pointer in places
        )
    except (OSError, BundleError):
        return False


def scan_model(folder: Path, pointer: str = "current") -> ScanResult:
    """Scan the folder of a model for the version that a file in it names."""
    # The fingerprint is taken before the version is read, so the next scan notices a change that happens in between.
    fingerprint = _fingerprint([folder / pointer])
    try:
        version = current_version(folder, pointer)
    except BundleError as error:
        return ScanResult(version=None, problem=error, fingerprint=fingerprint)
    # Opening the bundle reports the problem.
    with suppress(OSError):
        fingerprint += _fingerprint(sorted((folder / version).iterdir()))
    return ScanResult(version=version, problem=None, fingerprint=fingerprint)


def _fingerprint(paths: list[Path]) -> Fingerprint:
    fingerprint: Fingerprint = ()
    for path in paths:
        with suppress(OSError):
            # stat follows links: in a mounted ConfigMap, Kubernetes makes `current` a link.
            status = path.stat()
            fingerprint += ((path.name, status.st_size, status.st_ctime_ns, status.st_ino),)
    return fingerprint
