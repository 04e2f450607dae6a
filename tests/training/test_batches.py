import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import BATCHES_PER_POOL, batch_tensors, epoch_batches, sequential_batches, subsample
from training.recipe import Split


def ragged(num_items: int) -> Split:
    lengths = np.random.default_rng(0).integers(1, 100, num_items)
    series = np.random.default_rng(1).random((num_items, 100, 2), np.float32)
    return Split(inputs={"series": series, "lengths": lengths}, targets=np.arange(num_items))


def fixed_size(num_items: int) -> Split:
    return Split(inputs={"images": np.zeros((num_items, 2, 2), np.uint8)}, targets=np.arange(num_items))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.booleans())
def test_epoch_batches_are_full_and_have_no_duplicates(num_items: int, size: int, epoch: int, is_ragged: bool) -> None:
    split = (ragged if is_ragged else fixed_size)(num_items)
    batches = epoch_batches(split, size, seed=3, epoch=epoch)
    sampled = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {min(size, num_items)}
    assert len(set(sampled.tolist())) == len(sampled) > num_items - size


def test_epoch_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [
        np.concatenate(epoch_batches(fixed_size(50), 5, seed=s, epoch=e)) for s, e in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


def test_ragged_batches_hold_items_of_similar_length() -> None:
    split = ragged(8 * BATCHES_PER_POOL * 2)
    lengths = split.inputs["lengths"]
    spread = [np.ptp(lengths[batch]) for batch in epoch_batches(split, 8, seed=0, epoch=0)]
    # Without sorting, the lengths in a batch of 8 would spread over about 77 steps.
    assert np.mean(spread) < 6


@pytest.mark.parametrize("split", [fixed_size(23), ragged(23)], ids=["fixed_size", "ragged"])
def test_sequential_batches_have_every_item_once(split: Split) -> None:
    assert sorted(np.concatenate(list(sequential_batches(split, 5)))) == list(range(23))


def test_batch_tensors_cuts_batch_to_its_longest_item() -> None:
    split = ragged(20)
    batch = np.array([3, 7, 11])
    inputs, targets = batch_tensors(split, batch)
    assert inputs["series"].shape == (3, split.inputs["lengths"][batch].max(), 2)
    assert targets.tolist() == [3, 7, 11]
    np.testing.assert_array_equal(inputs["series"].numpy(), split.inputs["series"][batch, : inputs["series"].shape[1]])


def test_subsample_is_evenly_spaced() -> None:
    assert subsample(fixed_size(101), 11).targets.tolist() == list(range(0, 101, 10))
    assert subsample(fixed_size(5), 11).targets.tolist() == list(range(5))
