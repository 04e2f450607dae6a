"""A source knows the labels, the vocabulary and the lengths of its examples, whatever its reader and head are."""

import pytest

from tests.export.conftest import Candidates


def test_labels_are_those_of_the_head(candidates: Candidates) -> None:
    assert candidates("tiny-tagger").source.labels == ("ant", "bee", "cat", "dog")
    assert candidates("tiny-gan").source.labels == ()


def test_only_models_of_texts_have_a_vocabulary(candidates: Candidates) -> None:
    assert candidates("tiny-text").source.vocabulary == 18
    assert candidates("tiny-picture").source.vocabulary == 0


def test_the_reference_is_that_of_the_provenance(candidates: Candidates) -> None:
    assert candidates("tiny-lstm").source.reference == "PyTorch"


@pytest.mark.parametrize(
    ("name", "lengths"), [("tiny-picture", {1}), ("tiny-lstm", set(range(2, 10))), ("tiny-language", {24})]
)
def test_items_without_lengths_are_whole_windows_or_one_step(
    candidates: Candidates, name: str, lengths: set[int]
) -> None:
    source = candidates(name).source
    assert set(source.item_lengths().tolist()) == lengths
    assert len(source.item_lengths()) == len(source.examples)
