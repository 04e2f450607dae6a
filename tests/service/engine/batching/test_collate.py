"""Invalid inputs are refused, and no value of a row is lost or mixed up between requests and batches."""

from typing import Any

import numpy as np
import pytest

from service.engine.batching.collate import Collator, NotFiniteError
from tests.service.bundles import FAMILIES, example_inputs
from tests.service.engine.fakes import manifest, rows

TAGGER = Collator(manifest("series-tagger"))


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_inputs_of_every_family_pass(family: str) -> None:
    collator = Collator(manifest(family))
    assert collator.validate(example_inputs(family, batch=3)) == 3
    collator.check_finite(example_inputs(family))


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
def test_an_invalid_input_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        TAGGER.validate({**rows(3, 4), **changes})


def test_empty_and_missing_inputs_are_refused() -> None:
    empty = {name: value[:0] for name, value in rows(3).items()}
    with pytest.raises(ValueError, match=r"\[0, 3, 2\]"):
        TAGGER.validate(empty)
    with pytest.raises(ValueError, match=r"inputs \[\], expected"):
        TAGGER.validate({})


def test_an_axis_has_one_size_in_all_inputs() -> None:
    inputs = example_inputs("language-model")
    inputs["past_key_1"] = inputs["past_key_1"][:, :, :-1]
    with pytest.raises(ValueError, match="each axis name with one size"):
        Collator(manifest("language-model")).validate(inputs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["series", "h", "c"])
def test_rows_that_are_not_finite_are_named(name: str, bad: float) -> None:
    inputs = rows(3, 4, 2)
    inputs[name][2].flat[1] = bad
    inputs[name][0].flat[0] = bad
    with pytest.raises(NotFiniteError) as caught:
        TAGGER.check_finite(inputs)
    assert caught.value.rows == [0, 2]


def test_large_numbers_are_finite() -> None:
    inputs = rows(3, 4)
    inputs["series"][:] = np.float32(3e38)
    inputs["series"][1] *= -1
    TAGGER.check_finite(inputs)


def test_padding_within_a_bucket_is_below_a_tenth() -> None:
    collator = Collator(manifest("series-tagger", limits={"max_items": 8, "max_steps": 1000}))
    lengths = np.arange(1, 1001)
    buckets = np.array([collator.length_bucket(length) for length in lengths.tolist()])
    assert (np.diff(buckets) >= 0).all()
    assert buckets.max() < 70, "the buckets grow with the lengths"
    for bucket in range(buckets.max() + 1):
        members = lengths[buckets == bucket]
        assert members.size
        assert 1 - members.min() / members.max() < 0.1


def test_given_bounds_become_the_buckets() -> None:
    collator = Collator(manifest("series-tagger"), (4, 8, 12))
    assert [collator.length_bucket(length) for length in (1, 4, 5, 8, 9, 12)] == [0, 0, 1, 1, 2, 2]
    assert not collator.mixes_buckets
    assert [collator.computed_steps(n) for n in (1, 4, 5, 12)] == [4, 4, 8, 12]
    assert TAGGER.computed_steps(5) == 5


def test_a_batch_holds_the_rows_in_order_padded_with_zeros() -> None:
    one, other = rows(3, 5, 2), rows(4, seed=1)
    part = {name: value[[2, 0]] for name, value in one.items()}
    batch = TAGGER.collate([part, other], 4)
    assert batch["series"].shape == (3, 4, 2)
    np.testing.assert_array_equal(batch["series"][0, :3], one["series"][2, :3])
    np.testing.assert_array_equal(batch["series"][1], one["series"][0, :4])
    np.testing.assert_array_equal(batch["series"][2], other["series"][0])
    np.testing.assert_array_equal(batch["lengths"], [2, 3, 4])
    np.testing.assert_array_equal(batch["h"], np.stack([one["h"][2], one["h"][0], other["h"][0]]))
    assert {name: value.dtype for name, value in batch.items()} == {name: value.dtype for name, value in one.items()}


def test_short_rows_are_padded_with_zeros() -> None:
    batch = TAGGER.collate([rows(2), rows(5)], 5)
    assert not batch["series"][0, 2:].any()


def test_rows_that_are_not_contiguous_are_collated_too() -> None:
    one = {name: np.asfortranarray(np.repeat(value, 2, axis=-1))[..., ::2] for name, value in rows(3, 5).items()}
    one["lengths"] = np.array([3, 5])
    for num_steps in (4, 5, 7):
        batch, width = TAGGER.collate([one, rows(2), one], num_steps), min(num_steps, 5)
        np.testing.assert_array_equal(
            batch["series"][[0, 1, 3, 4], :width], np.tile(one["series"], (2, 1, 1))[:, :width]
        )
        assert not batch["series"][:, 5:].any()
        np.testing.assert_array_equal(batch["h"], np.concatenate([one["h"], rows(2)["h"], one["h"]]))


def test_outputs_get_the_steps_of_their_request() -> None:
    value = np.arange(24.0).reshape(2, 4, 3)
    answer = {"logits": value, "next_h": value}
    np.testing.assert_array_equal(TAGGER.restore_steps(answer, 3)["logits"], value[:, :3])
    longer = TAGGER.restore_steps(answer, 6)["logits"]
    np.testing.assert_array_equal(longer[:, :4], value)
    assert longer.shape == (2, 6, 3)
    assert TAGGER.restore_steps(answer, 3)["next_h"] is value
    assert Collator(manifest("image-classifier")).restore_steps(answer, 3) is answer


def test_without_lengths_only_equal_shapes_share_a_batch() -> None:
    collator = Collator(manifest("language-model"))
    one, other = example_inputs("language-model", batch=2), example_inputs("language-model", batch=3)
    assert collator.batch_key(one) == collator.batch_key(other)
    assert collator.batch_key({**one, "ids": one["ids"][:, :2]}) != collator.batch_key(one)
