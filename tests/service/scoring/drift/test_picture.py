"""The picture has a panel for each statistic, with bars as high as the shares."""

import io
from typing import Any

import numpy as np
from PIL import Image

from service.scoring.drift.picture import INPUT_COLOR, LARGE_COLOR, MAX_PANELS, REFERENCE_COLOR, drift_picture


def draw(*statistics: dict[str, Any]) -> np.ndarray:  # type: ignore[type-arg]
    drift = {"reference": "random items", "reference_rows": 10, "statistics": list(statistics)}
    content = drift_picture({"model": "m", "version": "v", "scored": 7, "drift": drift})
    assert content == drift_picture({"model": "m", "version": "v", "scored": 7, "drift": drift})
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def statistic(reference: list[int], counts: list[int], grade: str = "stable") -> dict[str, Any]:
    return {"name": "input brightness" * 4, "psi": 0.5, "verdict": grade, "reference": reference, "counts": counts}


def heights(pixels: np.ndarray, color: tuple[int, int, int]) -> list[int]:  # type: ignore[type-arg]
    """The heights of the bars of a color in the first panel, from the left."""
    columns = (pixels[44:172, 12:240] == color).all(axis=2).sum(axis=0)
    bars = np.split(columns, np.flatnonzero(np.diff(columns)) + 1)
    return [int(bar[0]) for bar in bars if bar[0]]


def test_bars_are_scaled_to_the_highest_share_of_both() -> None:
    pixels = draw(statistic([5, 5, 10], [0, 80, 20]))
    highest = 130 - 30 - 12
    assert heights(pixels, INPUT_COLOR) == [highest, round(highest / 4)]
    assert heights(pixels, REFERENCE_COLOR) == [round(highest * share / 0.8) for share in (0.25, 0.25, 0.5)]


def test_large_drift_is_red() -> None:
    stable, large = draw(statistic([1, 1], [1, 3])), draw(statistic([1, 1], [1, 3], "large"))
    assert heights(large, LARGE_COLOR) == heights(stable, INPUT_COLOR) == [29, 88]
    assert heights(stable, LARGE_COLOR) == heights(large, INPUT_COLOR) == []
    assert heights(large, REFERENCE_COLOR) == heights(stable, REFERENCE_COLOR)


def test_empty_samples_and_too_many_statistics_are_drawn() -> None:
    one = draw(statistic([0, 0], [0, 0]))
    assert heights(one, INPUT_COLOR) == []
    full = draw(*[statistic([1, 1], [1, 1])] * MAX_PANELS)
    assert draw(*[statistic([1, 1], [1, 1])] * (MAX_PANELS + 9)).shape == full.shape
    assert full.shape[0] > one.shape[0]
    assert draw().shape == one.shape
