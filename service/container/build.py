"""The version and revision of the sources that run: of a checkout, or of an installed package.

Only the standard library is imported, so that a command can name them in any environment.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Beside the packages; written when the package is built.
REVISION = "ekiben/REVISION"
UNKNOWN = "unknown"


def own_version(root: Path = ROOT) -> str:
    """The version that the checkout at `root` declares, else that of the installed package, else `unknown`."""
    try:
        return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return version("ekiben")
    except PackageNotFoundError:
        return UNKNOWN


def own_revision(root: Path = ROOT) -> str:
    """The commit that the checkout at `root` has checked out, or that the package was built from, or ""."""
    return _checked_out(root / ".git") or _recorded(root / REVISION)


def _recorded(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _checked_out(folder: Path) -> str:
    """The commit that a git folder has checked out, or ""."""
    try:
        head = (folder / "HEAD").read_text().strip()
        reference = head.removeprefix("ref: ")
        if reference == head:
            return head
        if (folder / reference).is_file():
            return (folder / reference).read_text().strip()
        packed = (line.split() for line in (folder / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [reference]), "")
    except OSError:
        return ""
