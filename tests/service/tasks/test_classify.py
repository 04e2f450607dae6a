"""A picture gets the label and probability that the graph gives its pixels."""

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.classify import A_SEVEN, classify_upload
from service.tasks.images import to_base64
from tests.service.bundles import PARAMETERS, weights

LABELS = PARAMETERS["image-classifier"]["labels"]
IMAGES = np.random.default_rng(1).integers(0, 256, (5, 4, 4), dtype=np.uint8)


def png(image: np.ndarray[Any, Any]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def reference(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The tiny model in numpy."""
    w = weights("image-classifier")
    logits = images.reshape(len(images), -1).astype(np.float64) @ w["w"] + w["b"]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_each_picture_has_its_label_and_probabilities(ask: Callable[..., dict[str, Any]]) -> None:
    answer = ask("image-classifier", images=[*IMAGES[:3].tolist(), *(to_base64(png(i)) for i in IMAGES[3:])], top_k=2)
    expected = reference(IMAGES)
    assert [p["label"] for p in answer["predictions"]] == [LABELS[i] for i in expected.argmax(axis=1)]
    for prediction, row in zip(answer["predictions"], expected, strict=True):
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
        assert [best["label"] for best in prediction["top"]] == [LABELS[i] for i in np.argsort(-row)[:2]]
        assert prediction["top"][0] == {"label": prediction["label"], "probability": prediction["probability"]}


def test_alone_and_together_are_the_same(ask: Callable[..., dict[str, Any]]) -> None:
    together = ask("image-classifier", images=IMAGES.tolist())
    alone = [ask("image-classifier", images=[image.tolist()])["predictions"][0] for image in IMAGES]
    assert together["predictions"] == alone


def test_a_raw_upload_is_the_same_picture(
    ask: Callable[..., dict[str, Any]], models: dict[str, Model], runner: Runner
) -> None:
    answer = asyncio.run(classify_upload(models["image-classifier"], runner, png(IMAGES[0]), 3, runner.new_context()))
    assert answer == ask("image-classifier", images=[IMAGES[0].tolist()])


@pytest.mark.parametrize(
    ("body", "where", "detail"),
    [
        ({}, "/images", "this field is required"),
        ({"images": []}, "/images", "expected 1 to 8 items, got an empty list"),
        ({"images": [IMAGES[0].tolist()] * 9}, "/images", "expected 1 to 8 items, got a list of 9"),
        ({"images": "abc"}, "/images", "expected a valid list, got 'abc'"),
        ({"images": [IMAGES[0].tolist(), [[0] * 4] * 3]}, "/images/1", "the shape is [4, 4]"),
        ({"images": [A_SEVEN]}, "/images/0", "expected an image of 4 x 4 pixels (height x width), got 28 x 28"),
        ({"images": [IMAGES[0].tolist()], "top_k": 0}, "/top_k", "expected greater than or equal to 1, got 0"),
        ({"images": [IMAGES[0].tolist()], "topk": 1}, "/topk", "unknown field; the fields are model, images, top_k"),
    ],
)
def test_what_is_wrong_is_named(refusal: Callable[..., Any], body: dict[str, Any], where: str, detail: str) -> None:
    pointer, sentence = refusal("image-classifier", **body)
    assert pointer == where
    assert detail in sentence


def test_an_upload_that_is_no_image_is_refused(models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match="expected a PNG or JPEG image"):
        asyncio.run(classify_upload(models["image-classifier"], runner, b"GIF89a", 3, runner.new_context()))


def test_a_model_of_another_task_names_its_endpoint(models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match="ask /generate, not /classify"):
        asyncio.run(classify_upload(models["image-generator"], runner, png(IMAGES[0]), 3, runner.new_context()))
