"""Errors in the form of OpenAI's API."""

import pytest

from service.errors import EkibenError, Fault
from service.tasks.faults import MAX_CHARS
from service.tasks.openai.error import error_object


def test_an_error_of_a_field_names_it() -> None:
    error = EkibenError("invalid-request", "wrong", (Fault(pointer="/messages/0", detail="x"),))
    assert error_object(error, 400) == {
        "message": "wrong", "type": "invalid_request_error", "param": "messages", "code": "invalid-request",
    }  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), [(404, "invalid_request_error"), (500, "server_error")])
def test_the_type_follows_from_the_status(status: int, kind: str) -> None:
    document = error_object(EkibenError("unknown-model", "no model"), status)
    assert (document["type"], document["param"], document["code"]) == (kind, None, "model_not_found")


@pytest.mark.parametrize("pointer", ["", "/"])
def test_a_fault_of_the_whole_body_names_no_field(pointer: str) -> None:
    document = error_object(EkibenError("invalid-request", "wrong", (Fault(pointer=pointer, detail="x"),)), 400)
    assert document["param"] in {None, ""}


def test_long_values_of_a_client_are_cut() -> None:
    error = EkibenError("invalid-request", "é" * 10_000, (Fault(pointer="/" + "a" * 10_000, detail="x"),))
    document = error_object(error, 400)
    assert (len(document["message"]), len(document["param"])) == (MAX_CHARS, MAX_CHARS)
