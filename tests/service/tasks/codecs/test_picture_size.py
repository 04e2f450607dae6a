"""Sizes and places of a resized picture are those of torchvision, and no picture is larger than the bound."""

import numpy as np
import pytest
from PIL import Image as Pillow

from service.contract.readers import ImageReader, ImageSpec, Resize
from service.errors import EkibenError
from service.manifest import AxisRange, RequestLimits
from service.tasks.codecs.picture_size import FILTERS, MAX_PIXELS, resize_image, scaled_size, size_error


def reader(height: int, width: int, **resize: object) -> ImageReader:
    return ImageReader(height=height, width=width, mode="L", resize=Resize.model_validate(resize))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (7, 7)),
        ((480, 640), (7, 9)),  # 9.33
        ((640, 480), (9, 7)),
        ((333, 500), (7, 10)),  # 10.51 is cut off, not rounded
        ((1, 1000), (7, 7000)),
        ((3, 2), (10, 7)),  # 10.5
    ],
)
def test_the_long_edge_is_cut_off(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, Resize(shortest_edge=7, crop=(7, 7))) == expected


def test_a_size_is_a_size() -> None:
    assert scaled_size(480, 640, Resize(size=(5, 9))) == (5, 9)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(8, 8, 2, 2), (9, 8, 2, 2), (8, 11, 2, 4), (7, 7, 2, 2), (5, 5, 0, 0)],  # halves go to the even number
)
def test_the_crop_begins_at_the_rounded_half_of_the_margin(height: int, width: int, top: int, left: int) -> None:
    pixels = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    spec = reader(4, 4, size=(height, width), crop=(4, 4))
    cropped = np.asarray(resize_image(Pillow.fromarray(pixels), spec, ""))
    assert np.array_equal(cropped, pixels[top : top + 4, left : left + 4])


@pytest.mark.parametrize(("width", "left"), [(8, 2), (9, 2), (10, 3), (11, 3)])
def test_halves_may_be_rounded_down_as_transformers_does(width: int, left: int) -> None:
    pixels = np.arange(8 * width, dtype=np.uint8).reshape(8, width)
    spec = reader(4, 4, size=(8, width), crop=(4, 4), halves="down")
    assert np.array_equal(np.asarray(resize_image(Pillow.fromarray(pixels), spec, "")), pixels[2:6, left : left + 4])


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_the_one_of_pillow(name: str) -> None:
    image = Pillow.fromarray(np.random.default_rng(1).integers(0, 256, (13, 17), dtype=np.uint8))
    expected = image.resize((8, 6), getattr(Pillow.Resampling, name.upper()))
    assert np.array_equal(resize_image(image, reader(6, 8, size=(6, 8), resample=name), ""), np.asarray(expected))


def test_a_picture_may_have_any_size_up_to_the_bound() -> None:
    spec = reader(4, 4, size=(4, 4))
    assert size_error(1, 1, spec, None) is None
    assert size_error(1 << 12, 1 << 13, spec, None) is None
    assert size_error((1 << 12) + 1, 1 << 13, spec, None) == (
        f"expected an image of at most {MAX_PIXELS} pixels, got 4097 x 8192 (height x width)"
    )


def test_a_picture_that_would_become_too_long_is_refused() -> None:
    spec = reader(200, 200, shortest_edge=256, crop=(200, 200))
    assert resize_image(Pillow.new("L", (1, 511)), spec, "").size == (200, 200)
    with pytest.raises(EkibenError, match=r"^/images/0: expected an image that scales to at most 33554432 pixels") as e:
        resize_image(Pillow.new("L", (1, 513)), spec, "/images/0")
    assert e.value.faults[0].detail.endswith("got 513 x 1 (height x width), which scales to 131328 x 256")


def test_without_a_declaration_a_picture_stays_as_it_is() -> None:
    image = Pillow.new("L", (5, 3))
    assert resize_image(image, ImageSpec(height=3, width=5, mode="L"), "") is image


def test_one_edge_may_be_free() -> None:
    limits = RequestLimits(max_items=1, axes={"width": AxisRange(min=2, max=6)})
    spec = ImageSpec(height=3, width=None, mode="L")
    assert size_error(3, 2, spec, limits) is None
    assert size_error(3, 6, spec, limits) is None
    detail = "expected an image of 3 x 2 to 6 pixels (height x width), got"
    assert size_error(4, 6, spec, limits) == f"{detail} 4 x 6"
    assert size_error(3, 7, spec, limits) == f"{detail} 3 x 7"


def test_a_free_size_may_have_to_be_a_multiple() -> None:
    spec = ImageSpec(height=None, width=6, mode="L")
    limits = RequestLimits(max_items=1, axes={"height": AxisRange(min=8, max=64, multiple_of=4)})
    assert size_error(12, 6, spec, limits) is None
    expected = "expected an image of 8 to 64 in multiples of 4 x 6 pixels (height x width), got 10 x 6"
    assert size_error(10, 6, spec, limits) == expected
