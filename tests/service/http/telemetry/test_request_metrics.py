"""Answers are counted by route and status."""

from service.http.telemetry.request_metrics import Traffic


def test_answers_are_counted() -> None:
    traffic = Traffic()
    for status in (200, 200, 503):
        traffic.count("/classify", status, 0.25)
    assert traffic.answers == {("/classify", 200): 2, ("/classify", 503): 1}
    assert traffic.seconds["/classify"].count == 3
    assert traffic.seconds["/classify"].sum_s == 0.75
