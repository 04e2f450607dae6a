"""Location of the real data sets: the folder in REAL_DATA, or `shared/data` beside the checkout."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REAL = Path(os.environ.get("REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def real() -> Callable[[str], Path]:
    """real("mnist") returns the path of the data set; the test is skipped when it is missing."""

    def dataset_path(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"no {name} in {REAL}: set REAL_DATA to the folder with the real data sets")
        return REAL / name

    return dataset_path
