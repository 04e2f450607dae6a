"""The package that pip installs: its files, its extras, and the command that it brings."""

import subprocess
import tomllib
import zipfile
from email.message import Message
from email.parser import BytesParser
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.wheel import ROOT, build_wheel

PACKAGES = ("training", "export", "service", "ekiben")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[Any]] = PROJECT["dependency-groups"]
# The command's own, groups for work on the sources, and the part that `serve` and `gpu` share.
NO_EXTRAS = {"cli", "base", "dev", "docs"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return BytesParser().parsebytes(wheel.read(name))


def unwrap(group: str) -> set[Requirement]:
    """The requirements of a group, which may include groups."""
    found: set[Requirement] = set()
    for entry in GROUPS[group]:
        found |= unwrap(entry["include-group"]) if isinstance(entry, dict) else {Requirement(entry)}
    return found


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: zipfile.ZipFile) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed - {"ekiben/REVISION"} == sources
    assert any(name.endswith(".html") for name in sources)


def test_the_wheel_names_the_revision_that_it_was_built_from(wheel: zipfile.ZipFile) -> None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no checkout of git")
    assert wheel.read("ekiben/REVISION").decode() == done.stdout


def test_every_group_that_a_user_needs_is_an_extra(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == set(GROUPS) - NO_EXTRAS


@pytest.mark.parametrize("extra", sorted(set(GROUPS) - NO_EXTRAS))
def test_an_extra_installs_what_its_group_installs(extra: str, metadata: Message) -> None:
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    found = {
        (canonicalize_name(each.name), frozenset(each.extras), each.specifier)
        for each in required
        if each.marker is not None and each.marker.evaluate({"extra": extra})
    }
    assert found == {(canonicalize_name(each.name), frozenset(each.extras), each.specifier) for each in unwrap(extra)}


def test_the_package_brings_the_command_and_its_completion_alone(wheel: zipfile.ZipFile, metadata: Message) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert wheel.read(name).decode() == "[console_scripts]\nekiben = ekiben.__main__:main\n"
    unconditional = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert unconditional == {str(each) for each in unwrap("cli")}


def test_no_public_index_takes_the_package(metadata: Message) -> None:
    """An index of PyPI's kind refuses this classifier: the package installs modules with names that others use."""
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
