"""Every benchmark can be imported: what it uses of the project is still there under the name that it uses."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVERS = ROOT / "benchmarks" / "peers" / "servers"  # each needs its own environment
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.stem not in {"__init__", "__main__"} and path.parent != SERVERS
)


@pytest.mark.parametrize("module", MODULES)
def test_the_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)
