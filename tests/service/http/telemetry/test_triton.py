"""Numbers under Triton's names."""

from service.engine.metrics import Counters, Histogram
from service.http.telemetry.request_metrics import ResponseMetrics
from service.http.telemetry.triton import triton_samples
from tests.service.http.telemetry.prometheus import scrape


def test_each_name_has_its_number() -> None:
    counters = Counters(model="m", version="v", executed_items=9, batches=4, queued_items=2)
    counters.queue_s.add(0.5)
    counters.compute_s.add(0.25)
    responses = ResponseMetrics()
    responses.responses |= {("/classify", 200): 5, ("/predict", 200): 1, ("/classify", 503): 2, ("/classify", 499): 1}
    responses.durations["/classify"] = Histogram(sum_s=2.0)
    responses.durations["/predict"] = Histogram(sum_s=1.0)
    assert scrape(triton_samples(counters, responses)) == {
        "nv_inference_request_success,m,v": 6,
        "nv_inference_request_failure,m,v": 3,
        "nv_inference_count,m,v": 9,
        "nv_inference_exec_count,m,v": 4,
        "nv_inference_request_duration_us,m,v": 3e6,
        "nv_inference_queue_duration_us,m,v": 0.5e6,
        "nv_inference_compute_infer_duration_us,m,v": 0.25e6,
        "nv_inference_pending_request_count,m,v": 2,
    }
