"""/classify returns the labels and probabilities of a reference implementation."""

import asyncio
import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.classify import EXAMPLE_PNG, ClassifyRequest, classify_upload
from tests.service.bundles import HEADS, weights

LABELS = HEADS["image-classifier"]["labels"]
IMAGES = np.random.default_rng(1).integers(0, 256, (5, 4, 4), dtype=np.uint8)


def png(image: np.ndarray[Any, Any]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def reference(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the probabilities of the tiny model in numpy."""
    w = weights("image-classifier")
    logits = images.reshape(len(images), -1).astype(np.float64) @ w["w"] + w["b"]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_predictions_match_the_numpy_reference(run_task: Callable[..., dict[str, Any]]) -> None:
    answer = run_task(
        "image-classifier",
        images=[*IMAGES[:3].tolist(), *(base64.b64encode(png(i)).decode() for i in IMAGES[3:])],
        top_k=2,
    )
    expected = reference(IMAGES)
    assert [p["label"] for p in answer["predictions"]] == [LABELS[i] for i in expected.argmax(axis=1)]
    for prediction, row in zip(answer["predictions"], expected, strict=True):
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
        assert [ranked["label"] for ranked in prediction["top"]] == [LABELS[i] for i in np.argsort(-row)[:2]]
        assert prediction["top"][0] == {"label": prediction["label"], "probability": prediction["probability"]}


def test_answer_names_the_model_and_its_version(
    run_task: Callable[..., dict[str, Any]], models: dict[str, Model]
) -> None:
    answer, manifest = run_task("image-classifier", images=[IMAGES[0].tolist()]), models["image-classifier"].manifest
    assert (answer["model"], answer["version"]) == (manifest.name, manifest.version)


def test_request_has_three_labels_by_default_and_documents_both_kinds_of_image() -> None:
    assert ClassifyRequest(model="m", images=[]).top_k == 3
    images = ClassifyRequest.model_json_schema()["properties"]["images"]
    assert images["items"]["anyOf"] == [{"type": "string"}, {"type": "array", "items": {}}]


def test_prediction_does_not_depend_on_other_images(run_task: Callable[..., dict[str, Any]]) -> None:
    batched = run_task("image-classifier", images=IMAGES.tolist())
    single = [run_task("image-classifier", images=[image.tolist()])["predictions"][0] for image in IMAGES]
    assert batched["predictions"] == single


def test_raw_upload_gets_the_same_answer(
    run_task: Callable[..., dict[str, Any]], models: dict[str, Model], runner: Runner
) -> None:
    answer = asyncio.run(classify_upload(models["image-classifier"], runner, png(IMAGES[0]), 3, runner.new_context()))
    assert answer == run_task("image-classifier", images=[IMAGES[0].tolist()])


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "/images", "this field is required"),
        ({"images": []}, "/images", "expected 1 to 8 items, got an empty list"),
        ({"images": [IMAGES[0].tolist()] * 9}, "/images", "expected 1 to 8 items, got a list of 9"),
        ({"images": "abc"}, "/images", "expected a valid list, got 'abc'"),
        ({"images": [IMAGES[0].tolist(), [[0] * 4] * 3]}, "/images/1", "the shape is [4, 4]"),
        ({"images": [EXAMPLE_PNG]}, "/images/0", "expected an image of 4 x 4 pixels (height x width), got 28 x 28"),
        ({"images": [IMAGES[0].tolist()], "top_k": 0}, "/top_k", "expected greater than or equal to 1, got 0"),
        ({"images": [IMAGES[0].tolist()], "topk": 1}, "/topk", "unknown field; the fields are model, images, top_k"),
    ],
)
def test_invalid_request_names_field_and_expectation(
    refusal: Callable[..., Any], body: dict[str, Any], pointer: str, detail: str
) -> None:
    got_pointer, got_detail = refusal("image-classifier", **body)
    assert got_pointer == pointer
    assert detail in got_detail


def test_upload_that_is_not_an_image_is_refused(models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match="expected a PNG or JPEG image") as caught:
        asyncio.run(classify_upload(models["image-classifier"], runner, b"GIF89a", 3, runner.new_context()))
    assert caught.value.faults[0].pointer == "", "the whole body"
