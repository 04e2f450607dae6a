"""The tokens of one row, and its events."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import Sampling, TokenLogprob
from service.engine.generation.sequence import SequenceState
from service.errors import EkibenError

CONTEXT = 12


def sequence(num_tokens: int = 4, *, max_tokens: int = 3, **fields: Any) -> SequenceState:
    sampling = Sampling(temperature=0, top_k=0, top_p=1, seed=0)
    session: Any = SimpleNamespace(manifest=SimpleNamespace(limits=SimpleNamespace(max_steps=CONTEXT)))
    params = GenerationParams(max_tokens=max_tokens, sampling=sampling, **fields)
    sink: Any = SimpleNamespace(is_streamed=True)
    return SequenceState(
        0, range(num_tokens), params, choice=0, session=session, sink=sink,
        decode=lambda ids: "".join(chr(97 + i) for i in ids),
    )  # fmt: skip


def token(number: int) -> TokenLogprob:
    return TokenLogprob(number, None, ())


def test_max_tokens_and_the_context_end_a_row() -> None:
    one = sequence()
    assert [one.append(token(i)) for i in range(3)] == [None, None, "length"]
    assert one.take_event("length").text == "abc"
    full = sequence(11, max_tokens=50)
    assert (full.append(token(0)), full.position) == ("length", CONTEXT)


def test_a_stop_id_is_no_token_and_a_stop_string_no_text() -> None:
    one = sequence(max_tokens=8, stop_ids=frozenset({9}), stops=("cd",))
    assert [one.append(token(i)) for i in (0, 2, 9)] == [None, None, "stop"]
    event = one.take_event("stop")
    assert (event.text, [token.id for token in event.tokens], event.is_last) == ("ac", [0, 2], True)
    other = sequence(max_tokens=8, stops=("cd",))
    assert [other.append(token(i)) for i in (0, 2, 3)] == [None, None, "stop"]
    event = other.take_event("stop")
    assert (event.text, [token.id for token in event.tokens]) == ("a", [0, 2, 3])


def test_an_event_holds_what_was_added_since_the_last_one() -> None:
    one = sequence(max_tokens=8, stops=("cd",))
    one.append(token(0))
    first = one.take_event()
    assert not one.has_text
    one.append(token(2))
    assert not one.has_text  # held back: it may begin a stop string
    last = one.take_event(error=EkibenError("timeout", "late"))
    assert (first.text, last.text, len(first.tokens), len(last.tokens)) == ("a", "", 1, 1)
    assert (first.is_last, last.is_last) == (False, True)


@pytest.mark.parametrize(("num_tokens", "max_tokens"), [(0, 1), (12, 1), (13, 0), (4, -1)])
def test_a_row_that_does_not_fit_the_context_is_refused(num_tokens: int, max_tokens: int) -> None:
    with pytest.raises(ValueError, match=r"tokens, expected|max_tokens is"):
        sequence(num_tokens, max_tokens=max_tokens)
    assert sequence(12, max_tokens=0).end == 12
