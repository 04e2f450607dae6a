"""One document for every error."""

import typing
from collections.abc import Callable

import orjson
import pytest

from service.errors import EkibenError, Fault, Slug
from service.http.wire.errors import MAX_CHARS, STATUS, oip_error, problem, status_of


@pytest.mark.parametrize("slug", typing.get_args(Slug))
def test_every_slug_has_a_status_and_a_document(slug: Slug) -> None:
    error = EkibenError(slug, "a sentence", (Fault(pointer="/images/0", detail="wrong"),))
    assert orjson.loads(problem(error)) == {
        "type": f"urn:ekiben:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status_of(error),
        "detail": "a sentence",
        "code": slug,
        "errors": [{"pointer": "/images/0", "detail": "wrong"}],
    }
    assert 400 <= status_of(error) < 600


def test_the_table_knows_every_slug_and_no_other() -> None:
    assert set(STATUS) == set(typing.get_args(Slug))


def test_half_a_surrogate_pair_does_not_break_the_document() -> None:
    error = EkibenError("invalid-request", "got '\ud800'", (Fault(pointer="/\ud800", detail="\udfff"),))
    assert orjson.loads(problem(error))["detail"] == "got '\\ud800'"


@pytest.mark.parametrize("dialect", [problem, oip_error])
def test_what_was_sent_is_not_repeated_without_limit(dialect: Callable[[EkibenError], bytes]) -> None:
    long = "ü" * 10**6
    document = orjson.loads(dialect(EkibenError("invalid-request", long, (Fault(pointer="/" + long, detail=long),))))
    cut = long[: MAX_CHARS - 1] + "…"
    assert document.pop("error", cut) == cut
    assert document["detail"] == cut
    assert document["errors"] == [{"pointer": "/" + cut[1:], "detail": cut}]


def test_a_sentence_that_just_fits_is_whole() -> None:
    assert orjson.loads(problem(EkibenError("internal", "x" * MAX_CHARS)))["detail"] == "x" * MAX_CHARS
