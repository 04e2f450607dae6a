"""A field of OpenAI's requests is used, changes nothing, or is refused."""

from typing import Any

import pytest

from service.errors import EkibenError
from service.tasks.openai.completions import CompletionRequest
from service.tasks.openai.fields import MAX_SEED, MIN_SEED, NEUTRAL, UNUSED, engine_seed, engine_stops, parse_fields


def parse(**body: Any) -> CompletionRequest:
    return parse_fields(CompletionRequest, {"model": "m", "prompt": "a", **body})


@pytest.mark.parametrize("name", sorted(UNUSED))
def test_fields_that_change_no_answer_are_passed_over(name: str) -> None:
    assert parse(**{name: {"any": "value"}}) == parse()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NEUTRAL.items() for value in values])
def test_values_that_ask_for_nothing_are_passed_over(name: str, value: Any) -> None:
    assert parse(**{name: value}) == parse()


def test_null_counts_as_absent() -> None:
    assert parse(temperature=None, suffix=None, stop=None, unheard_of=None) == parse()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"suffix": "end"}, "/suffix"),
        ({"tools": [{"type": "function"}]}, "/tools"),
        ({"response_format": {"type": "json_object"}}, "/response_format"),
        ({"unheard_of": 1}, "/unheard_of"),
        ({"stop_token_ids": [5]}, "/stop_token_ids"),
        ({"top_k": -2}, "/top_k"),
        ({"temperature": 2.1}, "/temperature"),
        ({"n": 0}, "/n"),
        ({"n": 129}, "/n"),
        ({"seed": MAX_SEED + 1}, "/seed"),
        ({"seed": MIN_SEED - 1}, "/seed"),
        ({"seed": 1.0}, "/seed"),
        ({"stream_options": {"include_usage": True}}, "/stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "/stream_options/include_obfuscation"),
        ({"stream": True, "stream_options": {"other": True}}, "/stream_options/other"),
    ],
)
def test_other_fields_and_values_are_refused(body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse(**body)
    assert (caught.value.slug, caught.value.faults[0].pointer) == ("invalid-request", pointer)


def test_top_k_of_minus_1_leaves_other_values_as_they_are() -> None:
    assert (parse(top_k=-1).top_k, parse(top_k=7).top_k) == (0, 7)


def test_an_unknown_field_of_an_object_does_not_name_those_of_the_request() -> None:
    with pytest.raises(EkibenError, match=r"/stream_options/other: unknown field$"):
        parse(stream=True, stream_options={"other": True})


@pytest.mark.parametrize(
    ("seed", "engine"),
    [(0, 0), (2**53 - 1, 2**53 - 1), (MAX_SEED, 2**63 - 1), (-1, 2**64 - 1), (MIN_SEED, 2**63)],
)
def test_every_int64_is_a_seed_of_its_own(seed: int, engine: int) -> None:
    assert engine_seed(parse(seed=seed)) == engine


def test_without_a_seed_it_is_random() -> None:
    assert len({engine_seed(parse()) for _ in range(5)}) == 5


def test_stops_are_a_text_or_a_list() -> None:
    assert engine_stops(parse(stop="a")) == ("a",)
    assert engine_stops(parse(stop=["a", "b"])) == ("a", "b")
    for invalid in ("", [""], ["a"] * 5, ["a" * 65], {"a": 1}, [1], 7):
        with pytest.raises(EkibenError, match="/stop"):
            engine_stops(parse(stop=invalid))
