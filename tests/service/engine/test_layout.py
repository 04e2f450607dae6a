"""Rows into batches and back: nothing that does not fit gets in, and nothing of a row is lost or mixed."""

from typing import Any

import numpy as np
import pytest

from service.engine.layout import Layout, NotFiniteError
from tests.service.bundles import FAMILIES, example_inputs
from tests.service.engine.fakes import manifest, rows

TAGGER = Layout(manifest("series-tagger"))


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_inputs_of_every_family_pass(family: str) -> None:
    layout = Layout(manifest(family))
    assert layout.check(example_inputs(family, batch=3)) == 3
    layout.check_numbers(example_inputs(family))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"series": np.zeros((2, 4, 2))}, "float64"),
        ({"series": np.zeros((2, 4, 3), np.float32)}, r"\[2, 4, 3\]"),
        ({"series": np.zeros((2, 4), np.float32)}, r"\[2, 4\]"),
        ({"series": [[[1.0, 2.0]]] * 2}, "list"),
        ({"h": np.zeros((3, 1, 3), np.float32)}, r"\[3, 1, 3\]"),
        ({"lengths": np.array([1, 5])}, "'lengths': row 1 is 5, expected 1 to 4"),
        ({"lengths": np.array([0, 4])}, "'lengths': row 0 is 0, expected 1 to 4"),
        ({"extra": np.zeros(2)}, "expected .'c', 'h', 'lengths', 'series'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        TAGGER.check({**rows(3, 4), **changes})


def test_no_rows_and_missing_inputs_do_not_fit() -> None:
    empty = {name: value[:0] for name, value in rows(3).items()}
    with pytest.raises(ValueError, match=r"\[0, 3, 2\]"):
        TAGGER.check(empty)
    with pytest.raises(ValueError, match=r"inputs \[\], expected"):
        TAGGER.check({})


def test_an_axis_has_one_size_in_all_inputs() -> None:
    inputs = example_inputs("language-model")
    inputs["past_key_1"] = inputs["past_key_1"][:, :, :-1]
    with pytest.raises(ValueError, match="one size for each name"):
        Layout(manifest("language-model")).check(inputs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["series", "h", "c"])
def test_rows_that_are_not_finite_are_found(name: str, bad: float) -> None:
    inputs = rows(3, 4, 2)
    inputs[name][2].flat[1] = bad
    inputs[name][0].flat[0] = bad
    with pytest.raises(NotFiniteError) as caught:
        TAGGER.check_numbers(inputs)
    assert caught.value.rows == [0, 2]


def test_large_numbers_are_finite() -> None:
    inputs = rows(3, 4)
    inputs["series"][:] = np.float32(3e38)
    inputs["series"][1] *= -1
    TAGGER.check_numbers(inputs)


def test_rows_of_one_bucket_waste_less_than_a_tenth() -> None:
    layout = Layout(manifest("series-tagger", limits={"max_items": 8, "max_steps": 1000}))
    lengths = np.arange(1, 1001)
    buckets = np.array([layout.bucket(length) for length in lengths.tolist()])
    assert (np.diff(buckets) >= 0).all()
    for bucket in range(buckets.max() + 1):
        members = lengths[buckets == bucket]
        assert members.size
        assert 1 - members.min() / members.max() < 0.1


def test_given_bounds_are_the_buckets() -> None:
    layout = Layout(manifest("series-tagger"), (4, 8, 12))
    assert [layout.bucket(length) for length in (1, 4, 5, 8, 9, 12)] == [0, 0, 1, 1, 2, 2]
    assert not layout.mixes
    assert [layout.computed_steps(n) for n in (1, 4, 5, 12)] == [4, 4, 8, 12]
    assert TAGGER.computed_steps(5) == 5


def test_a_batch_holds_the_rows_in_order_padded_with_zeros() -> None:
    one, other = rows(3, 5, 2), rows(4, seed=1)
    part = {name: value[[2, 0]] for name, value in one.items()}
    batch = TAGGER.gather([part, other], 4)
    assert batch["series"].shape == (3, 4, 2)
    np.testing.assert_array_equal(batch["series"][0, :3], one["series"][2, :3])
    np.testing.assert_array_equal(batch["series"][1], one["series"][0, :4])
    np.testing.assert_array_equal(batch["series"][2], other["series"][0])
    np.testing.assert_array_equal(batch["lengths"], [2, 3, 4])
    np.testing.assert_array_equal(batch["h"], np.stack([one["h"][2], one["h"][0], other["h"][0]]))
    assert {name: value.dtype for name, value in batch.items()} == {name: value.dtype for name, value in one.items()}


def test_what_is_beyond_a_short_row_is_zero() -> None:
    batch = TAGGER.gather([rows(2), rows(5)], 5)
    assert not batch["series"][0, 2:].any()


def test_rows_that_do_not_lie_in_one_piece_are_gathered_too() -> None:
    one = {name: np.asfortranarray(np.repeat(value, 2, axis=-1))[..., ::2] for name, value in rows(3, 5).items()}
    one["lengths"] = np.array([3, 5])
    for num_steps in (4, 5, 7):
        batch, width = TAGGER.gather([one, rows(2), one], num_steps), min(num_steps, 5)
        np.testing.assert_array_equal(
            batch["series"][[0, 1, 3, 4], :width], np.tile(one["series"], (2, 1, 1))[:, :width]
        )
        assert not batch["series"][:, 5:].any()
        np.testing.assert_array_equal(batch["h"], np.concatenate([one["h"], rows(2)["h"], one["h"]]))


def test_outputs_get_the_steps_of_their_request() -> None:
    value = np.arange(24.0).reshape(2, 4, 3)
    answer = {"logits": value, "next_h": value}
    np.testing.assert_array_equal(TAGGER.fit(answer, 3)["logits"], value[:, :3])
    longer = TAGGER.fit(answer, 6)["logits"]
    np.testing.assert_array_equal(longer[:, :4], value)
    assert longer.shape == (2, 6, 3)
    assert TAGGER.fit(answer, 3)["next_h"] is value
    assert Layout(manifest("image-classifier")).fit(answer, 3) is answer


def test_only_equal_shapes_share_a_batch_where_there_are_no_lengths() -> None:
    layout = Layout(manifest("language-model"))
    one, other = example_inputs("language-model", batch=2), example_inputs("language-model", batch=3)
    assert layout.key(one) == layout.key(other)
    assert layout.key({**one, "ids": one["ids"][:, :2]}) != layout.key(one)
