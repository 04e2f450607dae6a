"""Answers of status 300 and above become exceptions that say what a program can do."""

import json

import pytest

from ekiben.client.errors import (
    DeadlineError,
    EkibenClientError,
    Fault,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    UnavailableError,
    error_of,
)


def problem(status: int, code: str, *pointers: str) -> bytes:
    errors = [{"pointer": pointer, "detail": "is wrong"} for pointer in pointers]
    return json.dumps({"status": status, "code": code, "detail": "what is wrong", "errors": errors}).encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed-json", InvalidRequestError),
        (401, "unauthorized", PermissionDeniedError),
        (403, "forbidden", PermissionDeniedError),
        (404, "unknown-model", NotFoundError),
        (413, "body-too-large", InvalidRequestError),
        (422, "invalid-request", InvalidRequestError),
        (429, "rate-limited", UnavailableError),
        (503, "overloaded", UnavailableError),
        (504, "timeout", DeadlineError),
        (500, "internal", ServiceError),
    ],
)
def test_kind_follows_the_problem(status: int, code: str, kind: type[EkibenClientError]) -> None:
    error = error_of(status, {"x-request-id": "a-1"}, problem(status, code, "/images/3"))
    assert type(error) is kind
    assert "what is wrong" in str(error)
    if isinstance(error, ServiceError):
        assert (error.slug, error.status, error.request_id) == (code, status, "a-1")
        assert error.faults == (Fault(pointer="/images/3", detail="is wrong"),)
        assert "/images/3: is wrong" in str(error)


def test_a_reason_is_told_once() -> None:
    fault = {"pointer": "/model", "detail": "expected one of a, b, got 'x'"}
    document = {"code": "unknown-model", "detail": f"no such model: {fault['detail']}", "errors": [fault]}
    error = error_of(404, {}, json.dumps(document).encode())
    assert str(error) == "404 unknown-model: no such model: expected one of a, b, got 'x'"
    assert isinstance(error, NotFoundError)
    assert error.faults == (Fault(**fault),)
    # The item of a part has another number in the whole.
    fault = {"pointer": "/texts/0", "detail": "is empty"}
    document = {"code": "invalid-request", "detail": "/texts/0: is empty", "errors": [fault]}
    error = error_of(422, {}, json.dumps(document).encode())
    assert isinstance(error, InvalidRequestError)
    assert str(error) == "422 invalid-request: /texts/0: is empty"
    assert str(error.shifted(8)) == "422 invalid-request: /texts/0: is empty; /texts/8: is empty"
    # The same reason at two places is two faults.
    error = error_of(422, {}, problem(422, "invalid-request", "/images/3", "/images/7"))
    assert str(error).endswith("what is wrong; /images/3: is wrong; /images/7: is wrong")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": 7}', b"\xff"])
def test_an_answer_that_is_no_problem_document_is_told(body: bytes) -> None:
    error = error_of(502, {}, body)
    assert type(error) is ServiceError
    assert (error.slug, error.status, error.request_id) == ("unknown", 502, None)


def test_faults_of_a_part_name_the_item_in_the_whole() -> None:
    error = error_of(422, {}, problem(422, "invalid-request", "/images/3", "/images/0/1/2", "/top_k", ""))
    assert isinstance(error, InvalidRequestError)
    shifted = error.shifted(128)
    assert type(shifted) is InvalidRequestError
    assert [fault.pointer for fault in shifted.faults] == ["/images/131", "/images/128/1/2", "/top_k", ""]
