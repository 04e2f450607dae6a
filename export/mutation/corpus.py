"""A seeded corpus of mutants of one candidate: single weights, and structured kinds in equal shares."""

from collections.abc import Iterator
from itertools import islice, zip_longest

import numpy as np

from export.candidate import Candidate
from export.mutation.metadata import metadata_mutants
from export.mutation.mutant import SINGLE_WEIGHT, Mutant
from export.mutation.operators import operator_mutants
from export.mutation.weights import draw_weight_mutant, suitable_values

# The share of mutants that change one weight, and of those that change nodes, labels or the tokenizer.
SINGLE_SHARE, LISTED_SHARE = 0.4, 0.25
# A tensor of equal values has no mutant of some kinds, so a draw may give none.
MAX_DRAWS = 10  # per mutant


def draw_mutants(candidate: Candidate, *, count: int, seed: int) -> list[Mutant]:
    """Draw `count` mutants of graph, labels and tokenizer, fewer if the graph admits no more."""
    rng = np.random.default_rng(seed)
    return _draw(candidate, metadata_mutants(candidate, rng), count, rng)


def draw_graph_mutants(candidate: Candidate, *, count: int, seed: int) -> list[Mutant]:
    """Draw `count` mutants of the graph alone."""
    return _draw(candidate, [], count, np.random.default_rng(seed))


def _draw(candidate: Candidate, others: list[Mutant], count: int, rng: np.random.Generator) -> list[Mutant]:
    chosen = _balanced([*operator_mutants(candidate.model), *others], int(count * LISTED_SHARE), rng)
    num_single, num_values = round(count * SINGLE_SHARE), count - len(chosen)
    suitable = suitable_values(candidate)
    kinds = [kind for kind in suitable if kind != SINGLE_WEIGHT]

    def draw() -> Iterator[Mutant]:
        for number in range(MAX_DRAWS * count):
            kind = SINGLE_WEIGHT if number < num_single or not kinds else kinds[number % len(kinds)]
            mutant = draw_weight_mutant(suitable.get(kind, []), kind, rng)
            if mutant is not None:
                yield mutant

    return [*chosen, *islice(draw(), num_values)]


def _balanced(listed: list[Mutant], count: int, rng: np.random.Generator) -> list[Mutant]:
    """Choose mutants of all kinds in turn."""
    by_kind: dict[str, list[Mutant]] = {}
    for number in rng.permutation(len(listed)):
        by_kind.setdefault(listed[number].kind, []).append(listed[number])
    rounds = zip_longest(*by_kind.values())
    return [mutant for mutants in rounds for mutant in mutants if mutant is not None][:count]
