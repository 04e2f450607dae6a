"""The id of a request: the `X-Request-Id` that its client sent, or else a number of this process in 16 hex digits.

Invariant: every response names its id, and an id holds only characters that need no escaping in a log or a header.
"""

import os
import re
import secrets
from itertools import count

from service.http.identity.trace_context import TraceContext, read_traceparent

REQUEST_ID = "x-request-id"
_is_plain = re.compile(r"[0-9A-Za-z._:/+=@~-]{1,128}").fullmatch


class _Numbers:
    """The numbers of the requests of this process, from a random one on: two processes share none in practice."""

    def __init__(self) -> None:
        self._restart()
        os.register_at_fork(after_in_child=self._restart)  # workers are forked

    def _restart(self) -> None:
        self.next = count(secrets.randbits(63)).__next__


_numbers = _Numbers()


def identify(request_id: str, traceparent: str) -> tuple[str, TraceContext | None, list[tuple[str, str]]]:
    """Return the id of a request with these headers ("" if absent), its trace, and the headers of its response.

    Ids are no secrets, and those of one process follow each other. Costs less than a microsecond without headers.
    """
    if not request_id or _is_plain(request_id) is None:
        request_id = f"{_numbers.next():016x}"
    if not traceparent:
        return request_id, None, [(REQUEST_ID, request_id)]
    trace = read_traceparent(traceparent)
    return request_id, trace, [(REQUEST_ID, request_id), ("traceparent", trace.header)]
