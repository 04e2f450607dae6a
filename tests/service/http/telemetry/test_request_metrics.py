"""Responses are counted by route and status."""

from service.http.telemetry.request_metrics import RequestMetrics


def test_responses_and_durations_are_recorded_by_route() -> None:
    metrics = RequestMetrics()
    for status in (200, 200, 503):
        metrics.record("/classify", status, 0.25)
    assert metrics.in_flight == 0, "the router counts those in progress"
    assert metrics.responses == {("/classify", 200): 2, ("/classify", 503): 1}
    assert metrics.durations["/classify"].count == 3
    assert metrics.durations["/classify"].sum_s == 0.75


def test_requests_of_a_model_are_counted_by_its_version() -> None:
    metrics = RequestMetrics()
    metrics.record("/classify", 200, 0.25, "m", "v")
    metrics.record("/classify", 200, 0.25, "m", "w")
    metrics.record("/classify", 422, 0.25)
    assert metrics.responses == {("/classify", 422): 1}
    assert {key: dict(found.responses) for key, found in metrics.models.items()} == {
        ("m", "v"): {("/classify", 200): 1},
        ("m", "w"): {("/classify", 200): 1},
    }
