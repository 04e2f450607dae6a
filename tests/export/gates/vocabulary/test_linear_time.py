"""A pattern that backtracks over the whole text is refused, a linear one is not."""

from itertools import count

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


class Clock:
    """The seconds that each measurement of a run takes, the last ones repeated."""

    def __init__(self, small: float, *large: float) -> None:
        self.small, self.large = small, list(large)
        self.measured: list[tuple[str, int]] = []

    def __call__(self, tokenizer: Tokenizer, run: str, end: str, size: int, *, limit_s: float) -> float:
        self.measured.append((end, size))
        assert limit_s > 0.3
        if size == 2_048:
            return self.small
        return self.large.pop(0) if len(self.large) > 1 else self.large[0]


def check_with(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    tokenizer = replacing("bb")
    monkeypatch.setattr(linear_time, "measure_cost", lambda *_: None)
    monkeypatch.setattr(linear_time, "encoding_seconds", clock)
    check_linear_time(tokenizer, tokenizer.to_str())
    return clock


@pytest.mark.parametrize("large", [(0.066,), (0.066, 0.066, 0.016)])
def test_growth_is_refused_when_it_repeats(monkeypatch: pytest.MonkeyPatch, large: tuple[float, ...]) -> None:
    expected = r"takes 0\.066 s for 32,768 characters of 'a', 4 times as long for each as in 2,048"
    with pytest.raises(ValueError, match=expected):
        check_with(Clock(0.001, *large), monkeypatch)


@pytest.mark.parametrize(("small", "large"), [(0.001, (0.064,)), (0.001, (0.08, 0.016)), (1e-6, (0.005,))])
def test_linear_times_short_times_and_one_slow_measurement_pass(
    monkeypatch: pytest.MonkeyPatch, small: float, large: tuple[float, ...]
) -> None:
    clock = check_with(Clock(small, *large), monkeypatch)
    suffixes = {end for end, _ in clock.measured}
    assert len(suffixes) == 2
    assert "" in suffixes
    assert {size for _, size in clock.measured} == {2_048, 32_768}


def test_one_slow_measurement_of_the_small_text_hides_no_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    clock = Clock(0.001, 0.066)

    def disturbed(tokenizer: Tokenizer, run: str, end: str, size: int, *, limit_s: float) -> float:
        seconds = clock(tokenizer, run, end, size, limit_s=limit_s)
        return seconds + 0.01 * (size == 2_048 and next(numbers) % 3 == 0)

    tokenizer = replacing("bb")
    monkeypatch.setattr(linear_time, "measure_cost", lambda *_: None)
    monkeypatch.setattr(linear_time, "encoding_seconds", disturbed)
    with pytest.raises(ValueError, match="expected linear time"):
        check_linear_time(tokenizer, tokenizer.to_str())


def test_a_time_above_five_milliseconds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected linear time"):
        check_with(Clock(1e-5, 0.0051), monkeypatch)
