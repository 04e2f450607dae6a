"""Print the SBOM of one image: python -m deploy.supply_chain.listing serve

The builder of an image runs this, so it needs no package. The licences are checked by `make sbom`, not here.
"""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path

from deploy.supply_chain.images import LOCK_FILES, packages_of
from deploy.supply_chain.licences import read_licences
from deploy.supply_chain.sbom import write_sbom

ROOT = Path(__file__).parents[2]


def sbom_of(image: str) -> str:
    """Return the document of an image of this project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return write_sbom(image, packages_of(image), read_licences().packages, version=version)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.supply_chain.listing", description="Print an SBOM.")
    parser.add_argument("image", choices=LOCK_FILES)
    print(sbom_of(parser.parse_args(argv).image), end="")


if __name__ == "__main__":
    main()
