"""No changed picture is answered with other pixels than a strict decoder's; the strict decoders find what is broken."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from benchmarks.proof.picture_fuzz import LOWEST, REFUSALS, difference, search, seeds
from benchmarks.proof.strict_pictures import decode_grey_jpeg, decode_png
from service.tasks.codecs.images import PNG_START

NUM_INPUTS = 2500


def test_no_changed_picture_is_misread() -> None:
    counts, found, _ = search(NUM_INPUTS, seed=5)
    assert found == []
    assert counts["accepted"] > NUM_INPUTS / 50
    assert counts["refused"] > NUM_INPUTS / 2


def test_strict_decoders_agree_with_pillow_on_whole_files() -> None:
    for content in seeds():
        image = Image.open(BytesIO(content))
        pixels = np.asarray(image).reshape(28, 28, -1)
        if content.startswith(PNG_START):
            assert np.array_equal(decode_png(content), pixels)
        elif image.mode == "L" and b"\xff\xc2" not in content:
            assert np.abs(decode_grey_jpeg(content).clip(0, 255) - pixels).max() <= 1.5
            assert decode_grey_jpeg(content).min() > LOWEST


def test_a_misread_picture_is_found() -> None:
    for content in seeds()[:5]:
        pixels = np.asarray(Image.open(BytesIO(content)))
        assert difference(content, pixels) is None
        assert difference(content, 255 - pixels) is not None
        assert difference(content[:-30] + content[-12:], pixels) is not None
        with pytest.raises((*REFUSALS, struct.error)):
            (decode_png if content.startswith(PNG_START) else decode_grey_jpeg)(content[:200])
