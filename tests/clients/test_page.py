"""Every Python block of docs/clients.md runs against the bundles of this checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import bundles, server
from tests.e2e.serving import ROOT

__all__ = ["bundles", "server"]
PAGE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ADDRESS = "127.0.0.1:3000"


def test_page_has_a_block_for_each_client() -> None:
    assert len(BLOCKS) == 5
    assert all(ADDRESS in block for block in BLOCKS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int, server: str, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    code = BLOCKS[number].replace(ADDRESS, server.removeprefix("http://"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
