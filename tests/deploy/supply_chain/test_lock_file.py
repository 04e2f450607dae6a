"""A lock file is read whole."""

from pathlib import Path

import pytest

from deploy.supply_chain.lock_file import LockError, Package, read_lock

A, B = "a" * 64, "b" * 64


def test_packages_have_versions_and_hashes(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(f"jinja2==3.1.6 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\ntorch==2.13.0\n")
    assert read_lock(path) == (
        Package(name="jinja2", version="3.1.6", hashes=(A, B)),
        Package(name="torch", version="2.13.0", hashes=()),
    )
    assert read_lock(path)[0].purl == "pkg:pypi/jinja2@3.1.6"


@pytest.mark.parametrize(
    "line",
    [
        "jinja2>=3",
        "jinja2",
        "-r other.txt",
        "jinja2 @ https://example.org/jinja2.whl",
        "jinja2==3.1.6 ; python_version < '3.12'",
        "jinja2==3.1.6 --hash=sha256:12",
        f"    --hash=sha256:{A}",
    ],
)
def test_a_line_that_pins_no_package_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(f"pillow==12.0.0\n{line}\n")
    with pytest.raises(LockError, match="pins no package"):
        read_lock(path)
