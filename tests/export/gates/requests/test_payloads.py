"""Payloads are what clients send, and their inputs what the model must get."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from export.gates.requests.payloads import item, scaled, tensors_body
from service.contract.readers import Resize
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate


def decoded(body: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(BytesIO(base64.b64decode(body))))


def test_a_picture_is_scaled_by_pillow_and_cut_at_its_centre() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 31), dtype=np.uint8)
    resize = Resize(shortest_edge=10, crop=(8, 9), resample="bicubic")
    whole = np.asarray(Image.fromarray(picture).resize((15, 10), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(scaled(picture, resize), whole[1:9, 3:12])
    assert scaled(picture, Resize(size=(4, 5))).shape == (4, 5)


def test_a_scaled_picture_is_sent_in_another_size() -> None:
    candidate = make_candidate("tiny-resized")
    one = item(candidate, 0)
    assert decoded(one.body).shape == (12, 10)
    assert one.inputs["images"].shape == (8, 8)


def test_a_picture_of_free_size_is_sent_without_padding() -> None:
    one = item(make_candidate("tiny-detector"), 1)
    # The largest declared height, and a width between that is a multiple of what it may be.
    assert one.inputs["images"].shape == (12, 8, 3)
    assert np.array_equal(np.array(one.body, np.uint8), one.inputs["images"])


def test_a_row_names_its_columns_and_values() -> None:
    candidate = make_candidate("tiny-table")
    one = item(candidate, 4)
    assert list(one.body) == ["age", "colour", "weight"]
    assert one.body["colour"] == ("red", "green", "blue", "black")[int(one.inputs["categories"][0])]
    assert [one.body["age"], one.body["weight"]] == one.inputs["numbers"].tolist()


def test_a_text_has_the_ids_of_its_example(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    one = item(candidate, 2)
    assert one.text == one.body == candidate.source.examples.texts[2]
    assert one.encoding is not None
    assert one.encoding.ids == one.inputs["ids"].tolist()


def test_tensors_have_the_declared_axes_and_one_size() -> None:
    candidate = make_candidate("tiny-unbatched")
    body, [row] = tensors_body(candidate, [3])
    assert np.array(body["matrix"]).shape == row["matrix"].shape == (candidate.source.examples.inputs["rows"][3], 3)
    body, rows = tensors_body(make_candidate("tiny-regression"), [1, 2])
    assert np.array(body["features"]).shape == (2, 5)
    assert len(rows) == 2
