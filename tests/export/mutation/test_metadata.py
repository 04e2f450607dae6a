"""Labels and tokenizers are changed as an error of an export would change them."""

import json

import numpy as np
from tokenizers import Tokenizer

from export.mutation.metadata import metadata_mutants
from tests.export.conftest import Candidates


def test_all_pairs_of_a_few_labels_are_swapped(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    labels = candidate.manifest.labels
    mutants = metadata_mutants(candidate, np.random.default_rng(0))
    changed = [mutant.apply(candidate).manifest.labels for mutant in mutants]
    assert len(set(changed)) == 7
    assert all(sorted(order) == sorted(labels) != list(order) or order != labels for order in changed)
    assert ("bee", "cat", "dog", "ant") in changed
    assert candidate.manifest.labels == labels


def test_tokenizers_stay_valid_but_encode_otherwise(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    assert candidate.tokenizer is not None
    mutants = [m for m in metadata_mutants(candidate, np.random.default_rng(0)) if m.kind == "tokenizer"]
    assert {"ids shifted by one", "no pre_tokenizer", "another unknown token"} <= {m.location for m in mutants}
    for mutant in mutants:
        tokenizer = mutant.apply(candidate).tokenizer
        assert tokenizer is not None
        assert json.loads(tokenizer) != json.loads(candidate.tokenizer)
        Tokenizer.from_str(tokenizer)


def test_a_model_without_labels_and_tokenizer_has_no_such_mutants(candidates: Candidates) -> None:
    assert metadata_mutants(candidates("tiny-gan"), np.random.default_rng(0)) == []
