"""Pictures with structure: every single pixel, every grey value, and changes of test pictures."""

import numpy as np
import pytest

from export.gates.coverage import images
from export.gates.coverage.images import image_rows


def pictures(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    test = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    rows = list(image_rows(test))
    assert len({row.name for row in rows}) == len(rows)
    assert {(row.inputs["images"].shape, row.inputs["images"].dtype) for row in rows} == {(shape, np.dtype("uint8"))}
    return {row.name: np.asarray(row.inputs["images"]) for row in rows}


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_every_value_stands_alone_once(shape: tuple[int, ...]) -> None:
    singles = [image for name, image in pictures(shape).items() if name.startswith("pixel")]
    assert len(singles) == np.prod(shape)
    assert (np.sum(singles, axis=0) == 255).all()
    assert all(np.count_nonzero(image) == 1 for image in singles)


def test_every_grey_value_fills_a_picture_and_every_channel() -> None:
    named = pictures((4, 6, 3))
    for value in (0, 1, 77, 255):
        assert (named[f"all pixels {value}"] == value).all()
        channel = named[f"channel 1 of all pixels {value}"]
        assert (channel[..., 1] == value).all()
        assert not channel[..., [0, 2]].any()


@pytest.mark.parametrize("shape", [(16, 16), (8, 12, 3)])
def test_every_pixel_has_every_value_in_a_ramp(shape: tuple[int, ...]) -> None:
    ramps = [image for name, image in pictures(shape).items() if name.startswith("a ramp")]
    assert (np.sort(ramps, axis=0) == np.arange(256).reshape(-1, *[1] * len(shape))).all()
    assert all(len(np.unique(image)) == 256 for image in ramps)


def test_a_checkerboard_has_two_values() -> None:
    board = pictures((4, 6))["a checkerboard"]
    assert (board[:, 1:] != board[:, :-1]).all()
    assert set(np.unique(board)) == {0, 255}


def test_test_pictures_are_made_faint_bright_and_inverted() -> None:
    test = np.full((1, 2, 2), 160, np.uint8)
    named = {row.name: row.inputs["images"] for row in image_rows(test)}
    values = {name.split(", ")[1]: int(image[0, 0]) for name, image in named.items() if name.startswith("a test")}
    assert values == {
        "faint": 10, "bright": 250, "inverted": 95, "of two values": 255, "of few values": 128, "mirrored": 160,
        "upside down": 160,
    }  # fmt: skip


def test_single_pixels_of_large_pictures_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    singles = [name for name in pictures((8, 8)) if name.startswith("pixel")]
    assert len(singles) == 10
    assert singles[-1] == "pixel [7, 7] alone at 255"
