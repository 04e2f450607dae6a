import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.holdout import hold_out


@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.floats(0.05, 0.5), st.integers(0, 99))
def test_a_cut_is_a_partition_with_the_same_share_of_every_class(labels: list[int], share: float, seed: int) -> None:
    targets = np.array(labels, np.int64)
    kept, held = hold_out(targets, share=share, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(targets)))
    assert list(kept) == sorted(kept)
    assert list(held) == sorted(held)
    for label in set(labels):
        count = labels.count(label)
        assert (targets[held] == label).sum() == min(max(1, round(count * share)), count - 1)


def test_the_seed_decides() -> None:
    targets = np.arange(100) % 3
    cuts = [hold_out(targets, share=0.2, seed=seed)[1].tolist() for seed in (1, 1, 2)]
    assert cuts[0] == cuts[1] != cuts[2]
