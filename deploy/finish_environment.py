"""Finish the environment of an image: python finish_environment.py SITE_PACKAGES APP

Tests of packages, sources of compiled modules and tools that need torch are removed, because no image runs them. All
modules are compiled, because the file system of a container is read-only. Invariant: equal files give equal results, so
that an image can be built again with the same digest; bytecode is therefore bound to no time of a file.
"""

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

UNUSED_FOLDERS = ("**/tests", "tornado/test", "onnxruntime/transformers")
UNUSED_FILES = ("**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h")


def remove_unused(packages: Path) -> None:
    """Remove what no image runs."""
    for pattern in UNUSED_FOLDERS:
        for folder in list(packages.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)  # one folder may lie in another
    for pattern in UNUSED_FILES:
        for file in packages.glob(pattern):
            file.unlink()


def compile_modules(folder: Path) -> None:
    """Compile every module to bytecode; files that do not compile, such as templates, are skipped."""
    compileall.compile_dir(
        folder, maxlevels=100, quiet=2, force=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


def make_readable(folder: Path) -> None:
    """Let every user read, and nobody but root write, whatever the umask of the builder."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def main() -> None:
    packages, app = (Path(word) for word in sys.argv[1:])
    remove_unused(packages)
    for folder in (packages, app):
        compile_modules(folder)
        make_readable(folder)


if __name__ == "__main__":
    main()
