"""The `traceparent` header of W3C Trace Context: the place of a request in a trace that its client may have begun.

Invariant: an id in a context is valid; a header that is not valid starts a new trace, as the recommendation asks.
"""

import re
import secrets
from typing import NamedTuple

# https://www.w3.org/TR/trace-context/#traceparent-header: a later version may append fields, but not to version 00.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


class TraceContext(NamedTuple):
    """`span_id` is the span of this request, `parent_id` that of its caller; "" if the request starts the trace."""

    trace_id: str
    span_id: str
    parent_id: str
    is_sampled: bool

    @property
    def header(self) -> str:
        """The value of `traceparent` for those whom this request calls, and for its answer."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED * self.is_sampled:02x}"


def read_traceparent(header: str) -> TraceContext:
    """Return the context of a request with this header, which is not empty."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None or (match[1] == "00" and match[5] is not None):
        return TraceContext(secrets.token_hex(16), secrets.token_hex(8), "", is_sampled=False)
    return TraceContext(match[2], secrets.token_hex(8), match[3], is_sampled=bool(int(match[4], 16) & SAMPLED))
