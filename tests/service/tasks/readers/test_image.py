"""Images are read in the sizes that a model takes; those of several sizes become several groups."""

import asyncio
import base64
import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.codecs.images import read_image
from service.tasks.readers.image import (
    MAX_INLINE_PIXELS,
    group_by_shape,
    image_reader,
    is_quick,
    read,
    read_file,
    read_item,
)

RNG = np.random.default_rng(3)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def read_all(model: Model, runner: Runner, items: Any) -> Any:
    return asyncio.run(read(model, runner, {"images": items}, runner.new_context()))


def test_images_of_one_size_are_one_group(pair_models: dict[str, Model], runner: Runner) -> None:
    images = RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    payload = read_all(pair_models["tiny-scenes"], runner, images.tolist())
    [group] = payload.groups
    assert np.array_equal(group.inputs["images"], images)
    assert list(group.items) == [0, 1, 2]
    assert payload.pointer == "/images"


def test_images_of_several_sizes_are_groups_in_the_order_of_their_first_images() -> None:
    images = [np.full(shape, i, np.uint8) for i, shape in enumerate([(3, 4), (5, 4), (3, 4), (3, 5)])]
    groups = group_by_shape(images)
    assert [list(group.items) for group in groups] == [[0, 2], [1], [3]]
    assert [group.inputs["images"][:, 0, 0].tolist() for group in groups] == [[0, 2], [1], [3]]


def test_free_sizes_are_read_within_their_bounds(pair_models: dict[str, Model], runner: Runner) -> None:
    masks = pair_models["tiny-masks"]
    images = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((3, 3), (12, 10), (3, 3))]
    payload = read_all(masks, runner, [images[0].tolist(), base64.b64encode(png(images[1])).decode(), images[2]])
    assert [list(group.items) for group in payload.groups] == [[0, 2], [1]]
    assert np.array_equal(payload.groups[0].inputs["images"][1], images[2])
    assert np.array_equal(payload.groups[1].inputs["images"][0], images[1])


@pytest.mark.parametrize("size", [(2, 3), (13, 3), (3, 11)])
@pytest.mark.parametrize("encode", ["lists", "file", "array"])
def test_a_size_outside_the_bounds_is_refused(size: tuple[int, int], encode: str, *, pair_models: Any) -> None:
    pixels = np.zeros(size, np.uint8)
    item = {"lists": pixels.tolist(), "file": png(pixels), "array": pixels}[encode]
    with pytest.raises(EkibenError) as caught:
        read_item(item, pair_models["tiny-masks"].manifest, "/images/1")
    [fault] = caught.value.faults
    assert fault.pointer == "/images/1"
    if encode == "array":
        assert "expected uint8 ['height', 'width']" in fault.detail
    else:
        expected = f"expected an image of 3 to 12 x 3 to 10 pixels (height x width), got {size[0]} x {size[1]}"
        assert fault.detail == expected


@pytest.mark.parametrize(
    ("item", "pointer", "detail"),
    [
        ([], "", "expected a non-empty list of rows of pixels, got an empty list"),
        ([1, 2], "", "expected a non-empty list of rows of pixels, got a list of 2"),
        ([[0] * 3, [0] * 4, [0] * 3], "/1", "expected a list of 3 numbers"),
        ([[0] * 3, [0, 0, 256], [0] * 3], "/1/2", "expected a pixel value of 0 to 255, got 256"),
    ],
)
def test_lists_of_pixels_have_rows_of_one_width(item: Any, pointer: str, detail: str, *, pair_models: Any) -> None:
    with pytest.raises(EkibenError) as caught:
        read_item(item, pair_models["tiny-masks"].manifest, "")
    assert caught.value.faults[0].pointer == pointer
    assert detail in caught.value.faults[0].detail


def test_pictures_of_any_size_are_resized_from_files_lists_and_arrays(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-photos"].manifest
    pixels = RNG.integers(0, 256, (11, 20, 3), dtype=np.uint8)
    # 11 x 20 has a shortest edge of 6 at 6 x 10; 4 x 6 is cut out of its centre.
    scaled = Pillow.fromarray(pixels).resize((10, 6), Pillow.Resampling.BICUBIC)
    expected = np.asarray(scaled)[1:5, 2:8]
    for item in (pixels, pixels.tolist(), png(pixels), base64.b64encode(png(pixels)).decode()):
        assert np.array_equal(read_item(item, manifest, ""), expected)


def test_a_grey_or_palette_picture_is_converted_before_it_is_resized(pair_models: dict[str, Model]) -> None:
    pixels = RNG.integers(0, 256, (9, 30, 3), dtype=np.uint8)
    palette = Pillow.fromarray(pixels).quantize(8)
    buffer = BytesIO()
    palette.save(buffer, "PNG")
    scaled = palette.convert("RGB").resize((20, 6), Pillow.Resampling.BICUBIC)
    read = read_item(buffer.getvalue(), pair_models["tiny-photos"].manifest, "")
    assert np.array_equal(read, np.asarray(scaled)[1:5, 7:13])


def test_a_file_as_the_body_is_one_item(pair_models: dict[str, Model], runner: Runner) -> None:
    for name, shape in (("tiny-scenes", (4, 4)), ("tiny-masks", (7, 5))):
        pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
        payload = asyncio.run(read_file(pair_models[name], runner, png(pixels), runner.new_context()))
        [group] = payload.groups
        assert np.array_equal(group.inputs["images"], pixels[None])
        assert (payload.pointer, list(group.items)) == ("", [0])


def test_few_pixels_are_decoded_on_the_event_loop(pair_models: dict[str, Model]) -> None:
    names = ("tiny-scenes", "tiny-photos", "tiny-masks", "tiny-detector")
    assert [is_quick(image_reader(pair_models[name].manifest), 1) for name in names] == [True, False, False, False]
    limit = MAX_INLINE_PIXELS // 16
    reader = image_reader(pair_models["tiny-scenes"].manifest)
    assert is_quick(reader, limit)
    assert not is_quick(reader, limit + 1)


@pytest.mark.parametrize(("name", "thread"), [("tiny-scenes", "MainThread"), ("tiny-masks", "host-0")])
def test_other_images_are_decoded_on_the_host_thread(
    name: str, thread: str, *, pair_models: dict[str, Model], runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def decode(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read_image(*args)

    monkeypatch.setattr("service.tasks.readers.image.read_image", decode)
    read_all(pair_models[name], runner, [[[0] * 4] * 4] * 2)
    assert threads == [thread] * 2


@pytest.mark.parametrize(
    ("items", "detail"),
    [(None, "this field is required: tiny-scenes reads images"), ([], "expected 1 to 8 items, got an empty list")],
)
def test_a_request_has_items(items: Any, detail: str, *, pair_refusal: Callable[..., tuple[str, str]]) -> None:
    assert pair_refusal("tiny-scenes", images=items) == ("/images", detail)
