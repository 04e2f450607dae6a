"""Read a lock file of constraints/: the exact packages of one environment, with the hashes of their files.

Invariant: every line of the file belongs to a package that is returned.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[A-Za-z0-9.+!]+)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})*)\n",
    re.MULTILINE,
)


class LockError(ValueError):
    """A lock file holds a line that pins no package."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A pinned package; one of its published files must have one of the SHA-256 hashes, unless there are none."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(path: Path) -> tuple[Package, ...]:
    """Return the packages of a lock file in its order; raises LockError for a line of another form."""
    text = path.read_text()
    if rest := ENTRY.sub("", text).strip():
        raise LockError(f"{path}: {rest.splitlines()[0]!r} pins no package; `make lock` writes this file")
    return tuple(
        Package(
            name=entry["name"],
            version=entry["version"],
            hashes=tuple(re.findall(r"sha256:([0-9a-f]{64})", entry["hashes"])),
        )
        for entry in ENTRY.finditer(text)
    )
