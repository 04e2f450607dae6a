"""One document for every error."""

import typing

import orjson
import pytest

from service.errors import EkibenError, Fault, Slug
from service.http.problems import STATUS, problem, status_of


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
