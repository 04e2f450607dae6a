"""Every shipped package has a reviewed licence that its image allows."""

import importlib.metadata

import pytest
from packaging.utils import canonicalize_name

from deploy.supply_chain.images import LOCK_FILES, packages_of
from deploy.supply_chain.licences import Licences, find_problems, read_licences
from deploy.supply_chain.lock_file import Package

PACKAGE = Package(name="example", version="1.0", hashes=())


def problems(expression: str | None, image: str = "serve") -> list[str]:
    packages = {} if expression is None else {"example": expression}
    allowed = {"MIT": None, "Apache-2.0 WITH LLVM-exception": None, "LicenseRef-GPU": frozenset({"gpu"})}
    return find_problems(image, [PACKAGE], Licences(allowed=allowed, packages=packages))


@pytest.mark.parametrize("image", LOCK_FILES)
def test_every_package_of_an_image_is_allowed(image: str) -> None:
    assert find_problems(image, packages_of(image), read_licences()) == []


def test_an_unknown_licence_is_a_problem_that_names_package_and_file() -> None:
    [problem] = problems(None)
    assert problem.startswith("serve: example 1.0: its licence is unknown")
    assert "deploy/licences.toml" in problem


@pytest.mark.parametrize(
    "expression", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "GPL-3.0-only OR AGPL-3.0-only", "mystery"]
)
def test_a_licence_that_is_not_allowed_is_a_problem(expression: str) -> None:
    [problem] = problems(expression)
    assert "is not allowed in this image" in problem


@pytest.mark.parametrize(
    "expression", ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only OR MIT", "MIT AND (GPL-2.0-only OR MIT)"]
)
def test_one_part_of_or_and_all_parts_of_and_are_needed(expression: str) -> None:
    assert problems(expression) == []


def test_an_exception_is_a_licence_of_its_own() -> None:
    assert problems("Apache-2.0 WITH LLVM-exception") == []
    assert len(problems("Apache-2.0")) == 1


def test_a_licence_may_be_allowed_in_one_image_only() -> None:
    assert problems("LicenseRef-GPU", "gpu") == []
    assert len(problems("LicenseRef-GPU", "serve")) == 1


def test_no_line_is_left_of_a_package_that_is_not_shipped() -> None:
    shipped = {package.name for image in LOCK_FILES for package in packages_of(image)}
    assert set(read_licences().packages) - shipped == set()


def test_the_reviewed_lines_agree_with_the_metadata_of_installed_packages() -> None:
    licences, compared, different = read_licences().packages, 0, []
    for distribution in importlib.metadata.distributions():
        name, declared = canonicalize_name(distribution.name), distribution.metadata["License-Expression"]
        if declared and name in licences:
            compared += 1
            if licences[name] != declared:
                different.append((name, licences[name], declared))
    assert compared > 20
    assert different == []
