"""Adversarial texts are runs of characters and of fragments of patterns; exponential time is refused."""

import json

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from service.engine.sessions import tokenizer_cost
from service.engine.sessions.tokenizer_cost import (
    RUNS,
    TokenizerCost,
    adversarial_runs,
    adversarial_text,
    encoding_seconds,
    measure_cost,
)


def replacing(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.normalizer = normalizers.Replace(Regex(pattern), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_runs_have_the_fragments_of_the_patterns() -> None:
    runs, end = adversarial_runs(replacing(r"&lt;.*?&gt;|#\d+;").to_str())
    assert end == "\n&lt; &gt; # d ; &lt;&gt;#d"
    assert [run for run in runs if run not in RUNS] == ["&lt;", "&gt;", "d", ";", "&lt;&gt;#d"]
    assert json.loads(replacing("x").to_str())["normalizer"]["pattern"] == {"Regex": "x"}


def test_runs_have_white_space_punctuation_and_texts_outside_of_ascii() -> None:
    assert {*" \n\t", *"!-_.'&<#\\", *"aZ1é漢😀"} <= set(RUNS)
    assert sum(len(run) > 1 for run in RUNS) == 4


def test_a_pattern_has_sixteen_fragments_and_all_of_them_together() -> None:
    fragments = [f"x{i}" for i in range(20)]
    runs, _ = adversarial_runs(replacing("|".join(fragments)).to_str())
    assert [run for run in runs if run not in RUNS] == [*fragments[:16], "".join(fragments[:15])]


def test_a_run_ends_with_a_character_of_another_kind() -> None:
    assert adversarial_text("ab", "x;", 5) == "ababa!x;"
    assert adversarial_text("&lt;", "", 4) == "&lt;a"
    assert adversarial_text(" ", "", 3) == "   !"


def test_the_cost_is_that_of_the_slowest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 0.002, "é": 0.003}
    monkeypatch.setattr(tokenizer_cost, "RUNS", tuple(seconds))
    monkeypatch.setattr(
        tokenizer_cost, "encoding_seconds", lambda _, run, end, size, limit_s: seconds[run] * size / 2_000
    )
    cost = measure_cost(replacing(""), replacing("").to_str())
    assert cost == TokenizerCost(seconds_per_byte=pytest.approx(0.002 * 2_048 / 2_000 / 2_050), run="a")
    assert cost.max_inline_bytes == pytest.approx(1_000, rel=0.1)


def test_exponential_time_is_refused() -> None:
    tokenizer = replacing("(a+)+$")
    with pytest.raises(ValueError, match=r"characters of 'a': a pattern backtracks|fails on .* characters of 'a'"):
        measure_cost(tokenizer, tokenizer.to_str())


def test_a_time_above_the_limit_is_refused_when_it_repeats() -> None:
    with pytest.raises(ValueError, match=r"takes .* s for 64 characters of 'a': a pattern backtracks"):
        encoding_seconds(replacing("b"), "a", "", 64, limit_s=0.0)


def test_a_tokenizer_that_fails_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="?"))
    with pytest.raises(ValueError, match="fails on 16 characters of 'b': WordLevel error"):
        encoding_seconds(tokenizer, "b", "", 16, limit_s=1.0)
