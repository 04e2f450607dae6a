"""An image of an answer is a PNG with the pixels that the model computes."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from service.engine.sessions.model import Model
from service.tasks.heads.image import answers, outputs
from service.tasks.readers.payload import Group


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_images_are_png_files(shape: tuple[int, ...], *, pair_models: dict[str, Model]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    manifest = pair_models["tiny-masks"].manifest
    assert outputs(manifest) == ["new_images"]
    for row, image in zip(answers(manifest, {"new_images": images}, Group({}, range(2)), {}), images, strict=True):
        assert np.array_equal(np.asarray(Pillow.open(BytesIO(base64.b64decode(row["image"])))), image)


def test_an_image_of_latents_is_called_images(models: dict[str, Model]) -> None:
    assert outputs(models["image-generator"].manifest) == ["images"]
