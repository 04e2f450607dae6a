"""Error responses in both formats."""

import typing
from collections.abc import Callable

import orjson
import pytest

from service.errors import EkibenError, Fault, Slug
from service.http.wire.errors import STATUS, oip_error_response, problem_response
from service.http.wire.messages import Response
from service.tasks.faults import MAX_CHARS


@pytest.mark.parametrize("slug", typing.get_args(Slug))
def test_every_slug_has_a_status_and_a_problem_document(slug: Slug) -> None:
    error = EkibenError(slug, "a sentence", (Fault(pointer="/images/0", detail="wrong"),))
    response = problem_response(error)
    assert orjson.loads(response.body) == {
        "type": f"urn:ekiben:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": response.status,
        "detail": "a sentence",
        "code": slug,
        "errors": [{"pointer": "/images/0", "detail": "wrong"}],
    }
    assert 400 <= response.status < 600


def test_status_table_has_exactly_the_slugs() -> None:
    assert set(STATUS) == set(typing.get_args(Slug))


def test_both_formats_have_the_same_status_headers_and_members() -> None:
    error = EkibenError("invalid-request", "it is wrong", (Fault(pointer="/inputs/0", detail="expected 1"),))
    native, oip = problem_response(error), oip_error_response(error)
    assert native.status == oip.status == 422
    assert native.content_type == "application/problem+json"
    assert oip.content_type == "application/json"
    problem = orjson.loads(native.body)
    assert problem["errors"] == [{"pointer": "/inputs/0", "detail": "expected 1"}]
    assert orjson.loads(oip.body) == {"error": "it is wrong", **problem}
    assert native.headers == oip.headers == []


def test_only_unavailable_responses_have_retry_headers() -> None:
    assert problem_response(EkibenError("timeout", "late")).headers == []
    retry_headers = [("retry-after", "1"), ("retry-after-ms", "1000")]
    assert oip_error_response(EkibenError("not-ready", "soon")).headers == retry_headers
    response = problem_response(EkibenError("overloaded", "full", retry_after_s=0.0004))
    assert response.headers == [("retry-after", "1"), ("retry-after-ms", "1")]


def test_lone_surrogates_are_escaped() -> None:
    error = EkibenError("invalid-request", "got '\ud800'", (Fault(pointer="/\ud800", detail="\udfff"),))
    assert orjson.loads(problem_response(error).body)["detail"] == "got '\\ud800'"


@pytest.mark.parametrize("error_format", [problem_response, oip_error_response])
def test_long_client_values_are_truncated(error_format: Callable[[EkibenError], Response]) -> None:
    long = "ü" * 10**6
    error = EkibenError("invalid-request", long, (Fault(pointer="/" + long, detail=long),))
    document = orjson.loads(error_format(error).body)
    truncated = long[: MAX_CHARS - 1] + "…"
    assert document.pop("error", truncated) == truncated
    assert document["detail"] == truncated
    assert document["errors"] == [{"pointer": "/" + truncated[1:], "detail": truncated}]


def test_a_detail_of_exactly_the_maximum_length_is_kept_whole() -> None:
    response = problem_response(EkibenError("internal", "x" * MAX_CHARS))
    assert orjson.loads(response.body)["detail"] == "x" * MAX_CHARS
