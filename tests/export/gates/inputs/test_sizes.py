"""Free axes are tried at both ends and between, within their bounds; models without them draw nothing."""

import numpy as np

from export.gates.inputs.sizes import (
    clip_sizes,
    draw_sizes,
    every_size,
    free_axes,
    grid_sizes,
    longest_row,
    smallest_sizes,
)
from service.manifest import AxisRange, Manifest
from tests.export.conftest import Candidates
from tests.export.tiny_sources import FREE, make_candidate


def manifest() -> Manifest:
    return make_candidate("tiny-detector").manifest


def test_steps_of_ragged_rows_and_caches_are_no_free_axes(candidates: Candidates) -> None:
    for name, longest in (("tiny-lstm", 11), ("tiny-language", 24), ("tiny-picture", None)):
        one = candidates(name).manifest
        assert (free_axes(one), longest_row(one), grid_sizes(one)) == ({}, longest, [{}])
        rng = np.random.default_rng(0)
        assert draw_sizes(one, rng) == {}
        assert rng.integers(1 << 40) == np.random.default_rng(0).integers(1 << 40)


def test_the_grid_has_both_ends_of_each_axis_alone_and_together() -> None:
    one = manifest()
    assert free_axes(one) == FREE
    assert smallest_sizes(one) == {"height": 8, "width": 8} == grid_sizes(one)[0]
    for sizes in ({"height": 20, "width": 16}, {"height": 20, "width": 8}, {"height": 8, "width": 16}):
        assert sizes in grid_sizes(one)
    assert len(grid_sizes(one)) == len({tuple(sizes.items()) for sizes in grid_sizes(one)}) == 7


def test_every_size_of_a_short_axis_is_tried_once() -> None:
    tried = list(every_size(manifest(), np.random.default_rng(0)))
    assert [sizes["height"] for axis, sizes in tried if axis == "height"] == sorted(range(8, 21))
    assert {8, 16} <= {sizes["width"] for axis, sizes in tried if axis == "width"} <= set(range(8, 17))


def test_drawn_and_clipped_sizes_are_within_the_bounds() -> None:
    one, rng = manifest(), np.random.default_rng(0)
    heights = [draw_sizes(one, rng)["height"] for _ in range(300)]
    assert set(heights) == set(range(8, 21))
    assert clip_sizes(one, {"height": 99, "width": 1, "steps": 3}) == {"height": 20, "width": 8}


def test_sizes_are_multiples_where_the_axis_says_so() -> None:
    one, rng = make_candidate("tiny-unet").manifest, np.random.default_rng(0)
    tried = [
        *grid_sizes(one),
        *(sizes for _, sizes in every_size(one, rng)),
        *(draw_sizes(one, rng) for _ in range(100)),
        clip_sizes(one, {"height": 9, "width": 15}),
    ]
    assert {sizes["height"] for sizes in tried} == {8, 12, 16, 20}
    assert {sizes["width"] for sizes in tried} == {8, 12, 16}
    assert tried[-1] == {"height": 8, "width": 16}


def test_a_fixed_range_has_one_size() -> None:
    one = manifest()
    fixed = AxisRange(min=9, max=9)
    limits = one.limits.model_copy(update={"axes": {"height": fixed, "width": fixed}})
    assert grid_sizes(one.model_copy(update={"limits": limits})) == [{"height": 9, "width": 9}]
