"""A test item keeps its own size, and is cut or repeated to the sizes of a batch."""

import numpy as np

from export.gates.inputs.items import fit, item_sizes, overlay_item
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate


def test_values_are_cut_or_repeated_from_their_beginning() -> None:
    values = np.arange(6).reshape(2, 3)
    assert fit(values, (2, 3)) is values
    assert fit(values, (1, 2)).tolist() == [[0, 1]]
    assert fit(values, (3, 4)).tolist() == [[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0]]


def test_sizes_are_those_before_padding(candidates: Candidates) -> None:
    detector, tagger = make_candidate("tiny-detector"), candidates("tiny-tagger")
    assert item_sizes(detector.source, detector.manifest, 1) == {"height": 12, "width": 8}
    length = int(tagger.source.examples.inputs["lengths"][3])
    assert item_sizes(tagger.source, tagger.manifest, 3) == {"steps": length}
    picture = candidates("tiny-picture")
    assert item_sizes(picture.source, picture.manifest, 0) == {}


def test_an_overlaid_picture_holds_no_padding() -> None:
    candidate = make_candidate("tiny-detector")
    inputs = {"images": np.zeros((2, 16, 16, 3), np.uint8)}
    overlay_item(candidate.source, candidate.manifest, inputs, 1, 0, None)
    item = candidate.source.examples.inputs["images"][0]
    assert not inputs["images"][0].any()
    np.testing.assert_array_equal(inputs["images"][1, :8, :8], item[:8, :8])
    np.testing.assert_array_equal(inputs["images"][1, 8:, 8:], item[:8, :8])


def test_an_overlaid_series_starts_from_the_initial_state(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    inputs = {
        "series": np.ones((1, 5, 3), np.float32),
        "lengths": np.array([3]),
        "h": np.ones((1, 1, 6), np.float32),
        "c": np.ones((1, 1, 6), np.float32),
    }
    overlay_item(candidate.source, candidate.manifest, inputs, 0, 2, 3)
    assert (inputs["h"].any(), inputs["c"].any(), inputs["lengths"].tolist()) == (False, False, [3])
    assert (inputs["series"][0, 3:] == 1).all()
    np.testing.assert_array_equal(inputs["series"][0, 0], candidate.source.examples.inputs["series"][2, 0])
