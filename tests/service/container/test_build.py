"""Version and revision, from a checkout and from an installed package."""

from pathlib import Path

import pytest

from service.container import build
from service.container.build import REVISION, UNKNOWN, own_revision, own_version


def test_a_checkout_declares_its_version(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.1"\n')
    assert own_version(tmp_path) == "7.1"


def test_without_a_checkout_the_installed_package_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "version", lambda package: f"{package} 8")
    assert own_version(tmp_path) == "ekiben 8"


def test_what_is_neither_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise build.PackageNotFoundError(package)

    monkeypatch.setattr(build, "version", absent)
    assert (own_version(tmp_path), own_revision(tmp_path)) == (UNKNOWN, "")


def test_a_package_has_the_revision_that_it_was_built_from(tmp_path: Path) -> None:
    (tmp_path / REVISION).parent.mkdir()
    (tmp_path / REVISION).write_text("abc\n")
    assert own_revision(tmp_path) == "abc"


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert own_revision(tmp_path) == ""
    (git / "packed-refs").write_text("# pack-refs with: peeled\nabc refs/heads/other\ndef refs/heads/main\n")
    assert own_revision(tmp_path) == "def"
    (git / "HEAD").write_text("0123\n")
    assert own_revision(tmp_path) == "0123"
