"""Check the licence of every shipped package against deploy/licences.toml.

Invariant: a package passes only if a reviewed line names its licence and the file allows that licence in the image.
"""

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.supply_chain.lock_file import Package

LICENCES_FILE = Path(__file__).parents[1] / "licences.toml"


@dataclass(frozen=True, kw_only=True)
class Licences:
    """`allowed` holds the permitted images by licence, or None for all; `packages` an SPDX expression by package."""

    allowed: Mapping[str, frozenset[str] | None]
    packages: Mapping[str, str]


def read_licences(path: Path = LICENCES_FILE) -> Licences:
    """Read the list of allowed licences and the reviewed licences of packages."""
    content = tomllib.loads(path.read_text())
    allowed: dict[str, frozenset[str] | None] = dict.fromkeys(content["allowed"]["all-images"])
    for image, names in content["allowed"].items():
        if image != "all-images":
            allowed |= {name: frozenset({image}) for name in names}
    return Licences(allowed=allowed, packages=content["packages"])


def find_problems(image: str, packages: Iterable[Package], licences: Licences) -> list[str]:
    """Return one sentence for each package whose licence is unknown or not allowed in the image."""
    problems = []
    for package in packages:
        expression = licences.packages.get(package.name)
        if expression is None:
            problems.append(
                f"{image}: {package.name} {package.version}: its licence is unknown; read it in the package and add a "
                f"line to [packages] of deploy/licences.toml"
            )
        elif refused := _refused(expression, image, licences):
            problems.append(
                f"{image}: {package.name} {package.version}: {expression}: {refused} is not allowed in this image; "
                f"[allowed] of deploy/licences.toml lists what is"
            )
    return problems


def _refused(expression: str, image: str, licences: Licences) -> str | None:
    """Return the first licence that is needed and not allowed: all parts of AND, one part of OR."""
    spdx = _spdx()
    tree = spdx.parse(expression, validate=False)
    if isinstance(tree, spdx.OR):
        refusals = [_refused(part.render(), image, licences) for part in tree.args]
        return None if None in refusals else refusals[0]
    if isinstance(tree, spdx.AND):
        return next(filter(None, (_refused(part.render(), image, licences) for part in tree.args)), None)
    images = licences.allowed.get(tree.render(), frozenset())
    return None if images is None or image in images else tree.render()


@functools.cache
def _spdx() -> Any:
    """Return the parser of expressions; images, which only read the list, are built without its package."""
    from license_expression import get_spdx_licensing  # noqa: PLC0415

    return get_spdx_licensing()
