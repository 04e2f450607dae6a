import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.holdout import hold_out


@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.floats(0.05, 0.5), st.integers(0, 99))
def test_hold_out_partitions_items_with_equal_share_of_every_class(labels: list[int], share: float, seed: int) -> None:
    targets = np.array(labels, np.int64)
    remaining, held_out = hold_out(targets, share=share, seed=seed)
    assert sorted([*remaining, *held_out]) == list(range(len(targets)))
    assert list(remaining) == sorted(remaining)
    assert list(held_out) == sorted(held_out)
    for label in set(labels):
        count = labels.count(label)
        assert (targets[held_out] == label).sum() == min(max(1, round(count * share)), count - 1)


def test_hold_out_depends_on_the_seed_alone() -> None:
    targets = np.arange(100) % 3
    held_out_items = [hold_out(targets, share=0.2, seed=seed)[1].tolist() for seed in (1, 1, 2)]
    assert held_out_items[0] == held_out_items[1] != held_out_items[2]
