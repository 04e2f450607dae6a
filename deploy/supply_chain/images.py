"""The images that are shipped, each with the lock files of its Python environment.

The Debian packages of the base image are not covered: they are the publisher's of that image.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.supply_chain.lock_file import Package, read_lock

CONSTRAINTS = Path(__file__).parents[2] / "constraints"
LOCK_FILES: Mapping[str, str] = {"serve": "serve.txt", "gpu": "gpu.txt", "scoring": "ray.txt", "export": "export.txt"}
# The only image with torch. torch.txt also lists what its CUDA builds need, which an image for CPUs does not install.
WITH_TORCH = "export"


def packages_of(image: str, constraints: Path = CONSTRAINTS) -> tuple[Package, ...]:
    """Return the packages of an image, by name."""
    packages = read_lock(constraints / LOCK_FILES[image])
    if image == WITH_TORCH:
        packages += tuple(package for package in read_lock(constraints / "torch.txt") if package.name == "torch")
    return tuple(sorted(packages, key=lambda package: package.name))
