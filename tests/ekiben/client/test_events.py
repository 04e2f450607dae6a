"""Events are read from bytes that are cut anywhere."""

import pytest

from ekiben.client.attempts import Deadline
from ekiben.client.errors import ConnectionFailedError, DeadlineError, UnavailableError
from ekiben.client.events import EventReader
from ekiben.client.values import StreamEnd, TextEvent

TEXT = """\
data: {"index": 0, "text": "é"}

: a comment

data: {"index": 0, "text": "", "finish_reason": "stop", "tokens": 2}

event: end
data: {"model": "m", "version": "v", "seed": 1, "completions": [{"finish_reason": "stop", "tokens": 2}]}

""".encode()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_do_not_depend_on_where_bytes_are_cut(size: int) -> None:
    reader = EventReader(None)
    events = [event for i in range(0, len(TEXT), size) for event in reader.read(TEXT[i : i + size])]
    assert events == [
        TextEvent(index=0, text="é"),
        TextEvent(index=0, text="", finish_reason="stop", tokens=2),
        StreamEnd(model="m", version="v", seed=1, completions=[{"finish_reason": "stop", "tokens": 2}]),
    ]
    assert reader.is_ended
    reader.check_end()
    reader.check(Deadline(-1))


def test_an_error_event_is_raised() -> None:
    for code, kind in (("overloaded", UnavailableError), ("timeout", DeadlineError)):
        content = f'event: error\ndata: {{"status": 503, "code": "{code}", "detail": "no", "errors": []}}\n\n'
        with pytest.raises(kind):
            list(EventReader("id").read(content.encode()))


def test_a_stream_without_its_last_event_is_an_error() -> None:
    reader = EventReader(None)
    list(reader.read(TEXT[:40]))
    with pytest.raises(ConnectionFailedError, match="without its last event"):
        reader.check_end()
    with pytest.raises(DeadlineError):
        reader.check(Deadline(-1))
