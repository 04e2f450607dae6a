"""What waits to be written is bounded, nothing waits for the writer, and its failures end neither it nor a request."""

import threading
import time

import pytest

from service.http.telemetry.background import BackgroundWriter
from tests.service.engine.versions import wait_until


def test_items_are_written_in_order_and_the_rest_on_close() -> None:
    written: list[int] = []
    writer = BackgroundWriter[int]("x", written.extend, interval_s=0.001, max_items=1000, max_bytes=1000)
    for number in range(50):
        writer.put(number, 1)
    wait_until(lambda: len(written) == 50)
    slow = BackgroundWriter[int]("x", written.extend, interval_s=60, max_items=10, max_bytes=10)
    slow.put(50, 1)
    slow.close()
    assert written == list(range(51))
    writer.close()


@pytest.mark.parametrize(("max_items", "max_bytes"), [(3, 1000), (1000, 30)])
def test_what_is_too_much_is_dropped_and_counted_without_waiting(max_items: int, max_bytes: int) -> None:
    stuck, written = threading.Event(), list[int]()

    def write(items: list[int]) -> None:
        stuck.wait(30)
        written.extend(items)

    writer = BackgroundWriter[int]("x", write, interval_s=0.0, max_items=max_items, max_bytes=max_bytes)
    time.sleep(0.05)  # the thread is stuck with nothing
    started_at = time.monotonic()
    for number in range(100):
        writer.put(number, 10)
    assert time.monotonic() - started_at < 5
    assert writer.num_dropped == 97
    stuck.set()
    writer.close()
    assert written == [0, 1, 2]


def test_a_failure_is_logged_once_and_so_is_the_recovery(caplog: pytest.LogCaptureFixture) -> None:
    is_broken, written = True, list[int]()

    def write(items: list[int]) -> None:
        if is_broken and items:
            raise OSError("no space")
        written.extend(items)

    writer = BackgroundWriter[int]("the log", write, interval_s=0.001, max_items=10, max_bytes=100)
    with caplog.at_level("INFO"):
        for dropped in (1, 2, 3):
            writer.put(dropped, 1)
            wait_until(lambda dropped=dropped: writer.num_dropped == dropped)
        is_broken = False
        writer.put(4, 1)
        wait_until(lambda: written == [4])
        writer.close()
    levels = [record.levelname for record in caplog.records if record.name.endswith("background")]
    assert levels == ["ERROR", "INFO"]
    assert "the log cannot be written, so its items are dropped: no space" in caplog.text


def test_closing_does_not_wait_for_a_writer_that_is_stuck() -> None:
    writer = BackgroundWriter[int]("x", lambda _: time.sleep(60), interval_s=0.0, max_items=1, max_bytes=1)
    started_at = time.monotonic()
    writer.close(timeout_s=0.05)
    assert time.monotonic() - started_at < 10
