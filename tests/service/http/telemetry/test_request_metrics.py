"""Responses are counted by route and status."""

from service.http.telemetry.access_log import AccessLog
from service.http.telemetry.request_metrics import RequestMetrics
from tests.service.http.telemetry.observed import observation


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


def test_a_request_that_has_ended_is_in_no_cycle_with_what_observed_it() -> None:
    """Its body and its connection are free without a run of the garbage collector."""
    metrics = RequestMetrics((AccessLog(0.0, ()),))
    request = observation().request
    metrics.begin(request, "/classify")
    assert request.observation.request is request
    metrics.end(request, "/classify", 200, 0.25)
    assert request.observation is None
