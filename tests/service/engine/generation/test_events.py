"""An event is the last of its row if it has a reason or an error."""

import pytest

from service.engine.generation.events import FinishReason, GenerationEvent
from service.errors import EkibenError


@pytest.mark.parametrize(
    ("finish_reason", "error", "is_last"),
    [(None, None, False), ("stop", None, True), ("length", None, True), (None, EkibenError("timeout", "late"), True)],
)
def test_the_last_event_has_a_reason_or_an_error(
    finish_reason: FinishReason | None, error: EkibenError | None, is_last: bool
) -> None:
    event = GenerationEvent(index=0, text="a", tokens=(), finish_reason=finish_reason, error=error)
    assert event.is_last == is_last
