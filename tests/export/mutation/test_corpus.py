"""A corpus is seeded, has all kinds, and as many single weights as promised."""

from collections import Counter

from export.mutation.corpus import draw_graph_mutants, draw_mutants
from export.mutation.mutant import SINGLE_WEIGHT
from tests.export.conftest import Candidates


def test_the_same_seed_draws_the_same_mutants(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    first, again, other = (draw_mutants(candidate, count=60, seed=seed) for seed in (1, 1, 2))
    assert [str(mutant) for mutant in first] == [str(mutant) for mutant in again]
    assert [mutant.apply(candidate).model for mutant in first] == [mutant.apply(candidate).model for mutant in again]
    assert [str(mutant) for mutant in first] != [str(mutant) for mutant in other]


def test_kinds_have_their_shares(candidates: Candidates) -> None:
    mutants = draw_mutants(candidates("tiny-lstm"), count=100, seed=0)
    kinds = Counter(mutant.kind for mutant in mutants)
    assert len(mutants) == 100
    assert kinds[SINGLE_WEIGHT] == 40
    assert len(kinds) >= 18
    assert kinds["labels"] > 0


def test_graph_mutants_leave_labels_and_tokenizer_alone(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    for mutant in draw_graph_mutants(candidate, count=40, seed=0):
        changed = mutant.apply(candidate)
        assert (changed.manifest, changed.tokenizer) == (candidate.manifest, candidate.tokenizer)
        assert changed.model != candidate.model
