"""Ids of requests: the client's if they are plain, else numbers that no other process has."""

import os
import re

import pytest

from service.http.identity.request_id import identify


@pytest.mark.parametrize("given", ["a", "7f1c-4b.x_Y:Z/9+==@~", "x" * 128])
def test_a_plain_id_is_kept(given: str) -> None:
    assert identify(given, "") == (given, None, [("x-request-id", given)])


@pytest.mark.parametrize("given", ["", "x" * 129, 'a"b', "a b", "a\nb", "a,b", "\ufffd", "é", "<script>", "a\x00"])
def test_any_other_id_is_replaced(given: str) -> None:
    made, _, headers = identify(given, "")
    assert re.fullmatch("[0-9a-f]{16}", made)
    assert headers == [("x-request-id", made)]


def test_the_trace_is_answered_beside_the_id() -> None:
    _, trace, headers = identify("a", f"00-{'1' * 32}-{'2' * 16}-01")
    assert trace is not None
    assert headers == [("x-request-id", "a"), ("traceparent", trace.header)]


def test_ids_differ_in_a_process_and_between_forked_ones() -> None:
    ids = {identify("", "")[0] for _ in range(1000)}
    assert len(ids) == 1000
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, identify("", "")[0].encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        forked = pipe.read()
    assert abs(int(forked, 16) - int(identify("", "")[0], 16)) > 1_000_000
