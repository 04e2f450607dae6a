"""The parity plot is a PNG with the same bytes each time."""

from io import BytesIO

import pytest
from PIL import Image

from export.bundle.plots import parity_png
from tests.export.conftest import Candidates, Proofs


@pytest.mark.parametrize("name", ["tiny-gan", "tiny-text"])
def test_the_plot_is_a_png_with_the_same_bytes_each_time(candidates: Candidates, proofs: Proofs, name: str) -> None:
    manifest, parity = candidates(name).manifest, proofs(name).parity
    first, second = (parity_png(manifest, parity) for _ in range(2))
    assert first == second
    image = Image.open(BytesIO(first))
    assert image.format == "PNG"
    assert image.width > 800
    assert "Software" not in image.info
    assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50
