"""Suggestions for misspelt words."""

from ekiben.cli.suggestions import did_you_mean


def test_the_most_similar_word_is_suggested() -> None:
    assert did_you_mean("mnist-cn", ["mnist-mlp", "mnist-cnn"]) == "; did you mean mnist-cnn?"


def test_nothing_is_suggested_for_a_word_like_no_other() -> None:
    assert did_you_mean("zzz", ["mnist-mlp", "mnist-cnn"]) == ""
