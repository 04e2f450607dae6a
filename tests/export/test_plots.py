"""The picture of a parity."""

from io import BytesIO

import pytest
from PIL import Image

from export.plots import parity_png
from tests.export.conftest import Candidates, Proofs


@pytest.mark.parametrize("name", ["tiny-gan", "tiny-text"])
def test_the_picture_is_a_png_and_the_same_each_time(candidates: Candidates, proofs: Proofs, name: str) -> None:
    manifest, parity = candidates(name).manifest, proofs(name).parity
    first, second = (parity_png(manifest, parity) for _ in range(2))
    assert first == second
    picture = Image.open(BytesIO(first))
    assert picture.format == "PNG"
    assert picture.width > 800
    assert "Software" not in picture.info
    assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
