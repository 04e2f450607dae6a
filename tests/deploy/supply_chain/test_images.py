"""Each image has the packages of its lock files."""

import pytest

from deploy.supply_chain.images import CONSTRAINTS, LOCK_FILES, packages_of


@pytest.mark.parametrize("image", LOCK_FILES)
def test_packages_are_sorted_and_unique(image: str) -> None:
    names = [package.name for package in packages_of(image)]
    assert names == sorted(set(names))
    assert {"numpy", "bentoml"} <= set(names)


def test_only_the_export_image_has_torch_and_none_has_its_cuda_packages() -> None:
    with_torch = [image for image in LOCK_FILES if "torch" in {package.name for package in packages_of(image)}]
    assert with_torch == ["export"]
    assert "nvidia-cublas" not in {package.name for package in packages_of("export")}


def test_every_lock_file_belongs_to_an_image_or_to_development() -> None:
    assert {path.name for path in CONSTRAINTS.glob("*.txt")} == {*LOCK_FILES.values(), "dev.txt", "torch.txt"}
