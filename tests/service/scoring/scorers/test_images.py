"""Images of every form in one column."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Pillow

from service.engine.sessions.model import Model
from service.scoring.input.rows import Rows
from service.scoring.scorers.images import ImageScorer
from tests.service.scoring.inputs import images, png

IMAGES = images(5)


@pytest.fixture
def scorer(models: dict[str, Model]) -> ImageScorer:
    return ImageScorer(models["image-classifier"], {"image": "image"}, {})


def rows(column: Any, faults: dict[int, str] | None = None) -> Rows:
    return Rows(numbers=range(len(column)), columns={"image": column}, faults=faults or {})


def test_every_form_of_an_image_scores_alike(scorer: ImageScorer) -> None:
    forms = [
        IMAGES[0].tolist(),
        IMAGES[0].reshape(-1).tolist(),
        IMAGES[0].tobytes(),
        png(IMAGES[0]),
        base64.b64encode(png(IMAGES[0])).decode(),
    ]
    found = scorer.score(rows(forms))
    whole = scorer.score(rows(IMAGES[:1]))
    assert found.faults == {}
    assert found.columns["probability"].to_pylist() == whole.columns["probability"].to_pylist() * 5


def test_bad_images_are_rejected_and_the_others_scored(scorer: ImageScorer) -> None:
    column = [
        IMAGES[0].tolist(),
        None,
        b"junk",
        [[300] * 4] * 4,
        [[1]],
        png(np.zeros((5, 4), np.uint8)),
        "@",
        IMAGES[1].tolist(),
    ]
    found = scorer.score(rows(column))
    assert list(found.indexes) == [0, 7]
    assert found.columns["label"].to_pylist() == scorer.score(rows(IMAGES[:2])).columns["label"].to_pylist()
    reasons = [found.faults[i] for i in range(1, 7)]
    for text, part in zip(
        reasons,
        ["got null", "got 4 bytes", "image/0/0: expected", "expected a list of 4", "got 5 x 4", "expected base64"],
        strict=True,
    ):
        assert text.startswith("image")
        assert part in text


def test_unreadable_rows_stay_faults(scorer: ImageScorer) -> None:
    found = scorer.score(rows([IMAGES[0].tolist(), None], {1: "line too long"}))
    assert (list(found.indexes), found.faults) == ([0], {1: "line too long"})


@pytest.mark.parametrize("column", [pa.array([None, None], pa.binary()), pa.array([], pa.binary())])
def test_rows_without_a_readable_image_score_nothing(column: pa.Array, scorer: ImageScorer) -> None:
    found = scorer.score(rows(column))
    assert len(found.indexes) == 0
    assert len(found.faults) == len(column)
    assert {name: values.type for name, values in found.columns.items()} == {
        "label": pa.string(),
        "probability": pa.float32(),
    }


def test_a_broken_picture_is_a_reject(scorer: ImageScorer) -> None:
    whole = png(IMAGES[0])
    jpeg = BytesIO()
    Pillow.fromarray(IMAGES[0]).save(jpeg, "JPEG")
    cut = jpeg.getvalue()[:-6] + b"\xff\xd9"
    found = scorer.score(rows([whole, whole[:-12], cut, jpeg.getvalue()]))
    assert list(found.indexes) == [0, 3]
    assert {number: "broken one" in reason for number, reason in found.faults.items()} == {1: True, 2: True}
