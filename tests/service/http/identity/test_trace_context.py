"""`traceparent` as W3C Trace Context specifies it; the examples of what is invalid are the recommendation's."""

import re

import pytest

from service.http.identity.trace_context import read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_a_valid_header_continues_its_trace(flags: str, is_sampled: bool) -> None:
    trace = read_traceparent(f"00-{TRACE}-{SPAN}-{flags}")
    assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE, SPAN, is_sampled)
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-0{int(is_sampled)}", trace.header)
    assert trace.span_id != SPAN


def test_a_later_version_may_have_more_fields() -> None:
    assert read_traceparent(f"cc-{TRACE}-{SPAN}-01").trace_id == TRACE
    assert read_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings").trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        "\ufffd",
        "x" * 100_000,
    ],
)
def test_an_invalid_header_starts_a_new_trace(header: str) -> None:
    trace = read_traceparent(header)
    assert (trace.parent_id, trace.is_sampled) == ("", False)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace.header)
    assert TRACE not in trace.header
    assert trace.trace_id != read_traceparent(header).trace_id
