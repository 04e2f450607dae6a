"""Errors in two dialects, with the same members."""

import orjson

from service.errors import EkibenError, Fault
from service.http.route import in_oip, in_problem_json

WRONG = EkibenError("invalid-request", "it is wrong", (Fault(pointer="/inputs/0", detail="expected 1"),))


def test_both_dialects_say_the_same() -> None:
    native, oip = in_problem_json(WRONG), in_oip(WRONG)
    assert native.status == oip.status == 422
    assert native.content_type == "application/problem+json"
    assert oip.content_type == "application/json"
    problem = orjson.loads(native.body)
    assert problem["errors"] == [{"pointer": "/inputs/0", "detail": "expected 1"}]
    assert orjson.loads(oip.body) == {"error": "it is wrong", **problem}
    assert native.headers == oip.headers == []


def test_only_what_may_be_repeated_says_when() -> None:
    assert in_problem_json(EkibenError("timeout", "late")).headers == []
    assert in_oip(EkibenError("not-ready", "soon")).headers == [("retry-after", "1"), ("retry-after-ms", "1000")]
    soon = in_problem_json(EkibenError("overloaded", "full", retry_after_s=0.0004))
    assert soon.headers == [("retry-after", "1"), ("retry-after-ms", "1")]
