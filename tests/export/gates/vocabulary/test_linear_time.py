"""A pattern that backtracks over the whole text is refused, a linear one is not."""

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers

from export.gates.vocabulary import linear_time
from export.gates.vocabulary.linear_time import check_linear_time
from training.data import news


def replacing(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.normalizer = normalizers.Replace(Regex(pattern), " ")
    return tokenizer


@pytest.mark.parametrize("pattern", ["&lt;.*?&gt;", r"&lt;[\s\S]*?&gt;", r"\s+$", r"(a|a)*$", r"\d+x"])
def test_a_pattern_that_backtracks_is_refused(pattern: str) -> None:
    tokenizer = replacing(pattern)
    with pytest.raises(ValueError, match=r"(takes|fails on) .* characters of '.*'"):
        check_linear_time(tokenizer, tokenizer.to_str())


def test_the_tokenizer_of_the_news_is_linear() -> None:
    tokenizer = news.word_tokenizer(["known known words words"])
    check_linear_time(tokenizer, tokenizer.to_str())


def test_growth_is_refused_when_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = replacing("b")
    seconds = {2_048: 0.001, 32_768: 0.080}
    monkeypatch.setattr(linear_time, "measure_cost", lambda *_: None)
    monkeypatch.setattr(linear_time, "encoding_seconds", lambda _, run, end, size, limit_s: seconds[size])
    expected = r"takes 0\.08 s for 32,768 characters of 'a', 5 times as long for each as in 2,048"
    with pytest.raises(ValueError, match=expected):
        check_linear_time(tokenizer, tokenizer.to_str())
    seconds[32_768] = 0.064
    check_linear_time(tokenizer, tokenizer.to_str())
