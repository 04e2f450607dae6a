"""Where the real data sets lie: the folder EKIBEN_DATA names, or `shared/data` beside the checkout."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REAL = Path(os.environ.get("EKIBEN_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def real() -> Callable[[str], Path]:
    """real("mnist") -> its path; skips the test where it is not there."""

    def find(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"no {name} in {REAL}: set EKIBEN_DATA to the folder with the real data sets")
        return REAL / name

    return find
