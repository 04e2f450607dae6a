import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import POOL, epoch_batches, in_order, take, thin
from training.recipe import Split


def ragged(num_items: int) -> Split:
    lengths = np.random.default_rng(0).integers(1, 100, num_items)
    series = np.random.default_rng(1).random((num_items, 100, 2), np.float32)
    return Split(inputs={"series": series, "lengths": lengths}, targets=np.arange(num_items))


def plain(num_items: int) -> Split:
    return Split(inputs={"images": np.zeros((num_items, 2, 2), np.uint8)}, targets=np.arange(num_items))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.booleans())
def test_an_epoch_has_every_item_once_in_full_batches(num_items: int, size: int, epoch: int, is_ragged: bool) -> None:
    split = (ragged if is_ragged else plain)(num_items)
    batches = epoch_batches(split, size, seed=3, epoch=epoch)
    drawn = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {min(size, num_items)}
    assert len(set(drawn.tolist())) == len(drawn) > num_items - size


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = [np.concatenate(epoch_batches(plain(50), 5, seed=s, epoch=e)) for s, e in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


def test_ragged_items_meet_their_like() -> None:
    split = ragged(8 * POOL * 2)
    lengths = split.inputs["lengths"]
    spread = [np.ptp(lengths[batch]) for batch in epoch_batches(split, 8, seed=0, epoch=0)]
    assert np.mean(spread) < 6  # of 99; shuffled batches of 8 spread over about 77


@pytest.mark.parametrize("split", [plain(23), ragged(23)], ids=["plain", "ragged"])
def test_evaluation_sees_every_item_once(split: Split) -> None:
    assert sorted(np.concatenate(list(in_order(split, 5)))) == list(range(23))


def test_a_batch_is_cut_to_its_longest_and_keeps_its_items() -> None:
    split = ragged(20)
    batch = np.array([3, 7, 11])
    inputs, targets = take(split, batch)
    assert inputs["series"].shape == (3, split.inputs["lengths"][batch].max(), 2)
    assert targets.tolist() == [3, 7, 11]
    np.testing.assert_array_equal(inputs["series"].numpy(), split.inputs["series"][batch, : inputs["series"].shape[1]])


def test_thinning_spreads_over_the_split() -> None:
    assert thin(plain(101), 11).targets.tolist() == list(range(0, 101, 10))
    assert thin(plain(5), 11).targets.tolist() == list(range(5))
