"""The lock files in constraints/ cover the dependency groups, with hashes."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = {
    "serve": ["serve", "grpc", "otel"],
    "gpu": ["gpu", "ray", "grpc", "otel"],
    "ray": ["ray", "serve", "tables", "sql"],
    "export": ["train", "serve", "hf", "keras"],
    "dev": ["dev", "serve", "train", "keras", "ray"],
}
GROUPS: dict[str, list[Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
ENTRY = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>[^ \n]+)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})*)\n")


def read_lock(name: str) -> dict[str, tuple[str, int]]:
    """Return version and number of hashes by package; the file must hold nothing else."""
    text = (ROOT / "constraints" / f"{name}.txt").read_text()
    assert ENTRY.sub("", text) == ""
    return {entry["name"]: (entry["version"], entry["hashes"].count("sha256")) for entry in ENTRY.finditer(text)}


def requirements(group: str) -> list[Requirement]:
    found = []
    for entry in GROUPS[group]:
        found += requirements(entry["include-group"]) if isinstance(entry, dict) else [Requirement(entry)]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes(name: str) -> None:
    without = [package for package, (_, hashes) in read_lock(name).items() if not hashes]
    assert not without


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_satisfies_its_groups(name: str) -> None:
    pinned = read_lock(name) | (read_lock("torch") if name in {"export", "dev"} else {})
    needed = [requirement for group in LOCKS[name] for requirement in requirements(group)]
    unmet = [
        str(requirement)
        for requirement in needed
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), ("0", 0))[0])
    ]
    assert needed
    assert not unmet


def test_only_torch_and_what_its_builds_need_is_without_hashes() -> None:
    torch = read_lock("torch")
    assert torch["torch"] == ("2.13.0", 0)
    assert not set(torch) & set(read_lock("dev"))
    assert all(re.fullmatch(r"torch|triton|cuda-.+|nvidia-.+", package) for package in torch)


@pytest.mark.parametrize("name", ["serve", "gpu", "ray"])
def test_no_image_that_serves_contains_torch(name: str) -> None:
    assert not set(read_lock(name)) & {"torch", "onnx", "onnxscript", "transformers"}


@pytest.mark.parametrize("other", ["serve", "gpu", "ray"])
def test_a_runtime_for_cpu_and_one_for_gpu_never_meet(other: str) -> None:
    assert ("onnxruntime" in read_lock(other)) != ("onnxruntime-gpu" in read_lock(other))
