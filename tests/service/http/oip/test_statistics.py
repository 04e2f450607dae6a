"""Statistics equal the metrics that they are made of."""

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from service.errors import EkibenError
from service.http.oip.statistics import model_statistics
from tests.service.bundles import example_inputs
from tests.service.hosts import GRANIAN, ask, counted, running_server, wait_until

PIXELS = example_inputs("image-classifier", batch=3)["images"]
GOOD = {"inputs": [{"name": "images", "shape": [3, 4, 4], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}]}


class FakeRepository:
    def __init__(self, *versions: str) -> None:
        self.rows = [{"name": "m", "version": version} for version in versions]

    def list_models(self) -> list[dict[str, Any]]:
        return self.rows

    def describe_model(self, name: str) -> None:
        raise EkibenError("unknown-model", f"no model {name!r}")


class State:
    def __init__(self, *versions: str) -> None:
        self.repository = FakeRepository(*versions)


LABELS = (("model", "m"), ("version", "v1"))
SAMPLES: Any = {
    ("ekiben_engine_requests", "_total", LABELS): 5,
    ("ekiben_engine_items", "_total", (*LABELS, ("outcome", "executed"))): 12,
    ("ekiben_engine_items", "_total", (*LABELS, ("outcome", "failed"))): 3,
    ("ekiben_engine_batches", "_total", (*LABELS, ("mode", "inline"))): 2,
    ("ekiben_engine_batches", "_total", (*LABELS, ("mode", "thread"))): 4,
    ("ekiben_engine_request_seconds", "_count", (*LABELS, ("outcome", "success"))): 4,
    ("ekiben_engine_request_seconds", "_sum", (*LABELS, ("outcome", "success"))): 0.25,
    ("ekiben_engine_request_seconds", "_count", (*LABELS, ("outcome", "fail"))): 1,
    ("ekiben_engine_request_seconds", "_sum", (*LABELS, ("outcome", "fail"))): 0.5,
    ("ekiben_engine_queue_seconds", "_count", LABELS): 4,
    ("ekiben_engine_queue_seconds", "_sum", LABELS): 0.125,
    ("ekiben_engine_compute_seconds", "_count", LABELS): 6,
    ("ekiben_engine_compute_seconds", "_sum", LABELS): 0.0625,
    ("ekiben_engine_last_request_timestamp_seconds", "", LABELS): 1_700_000_000.125,
}


def test_every_number_is_that_of_a_metric() -> None:
    state: Any = State("v1")
    [model] = model_statistics(state, SAMPLES, "m")["model_stats"]
    assert model == {
        "name": "m",
        "version": "1",
        "served_version": "v1",
        "last_inference": 1_700_000_000_125,
        "inference_count": 12,
        "execution_count": 6,
        "inference_stats": {
            "success": {"count": 4, "ns": 250_000_000},
            "fail": {"count": 1, "ns": 500_000_000},
            "queue": {"count": 4, "ns": 125_000_000},
            "compute_input": {"count": 6, "ns": 0},
            "compute_infer": {"count": 6, "ns": 62_500_000},
            "compute_output": {"count": 6, "ns": 0},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
    }


def test_a_version_that_has_served_keeps_its_statistics() -> None:
    state: Any = State("v2")
    for version, called, count in ((None, "1", 0), ("1", "1", 0), ("v1", "v1", 12), ("v2", "v2", 0)):
        [row] = model_statistics(state, SAMPLES, "m", version)["model_stats"]
        assert (row["version"], row["inference_count"]) == (called, count)
    with pytest.raises(EkibenError, match="m has not served version 'v3'"):
        model_statistics(state, SAMPLES, "m", "v3")
    with pytest.raises(EkibenError, match="no model 'x'"):
        model_statistics(state, SAMPLES, "x")


def statistics(client: TestClient, path: str) -> Any:
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.json()["model_stats"]


def test_the_routes_count_what_was_asked(client: TestClient) -> None:
    [before] = statistics(client, "/v2/models/tiny-images/stats")
    for document, status in ((GOOD, 200), (GOOD, 200), ({**GOOD, "outputs": [{"name": "x"}]}, 422)):
        assert client.post("/v2/models/tiny-images/infer", json=document).status_code == status
    [after] = statistics(client, "/v2/models/tiny-images/stats")
    assert after["inference_count"] - before["inference_count"] == 6
    success, earlier = (row["inference_stats"]["success"] for row in (after, before))
    assert success["count"] - earlier["count"] == 2, "a request that is refused on reading never reaches the model"
    assert success["ns"] > earlier["ns"]
    assert abs(after["last_inference"] / 1e3 - time.time()) < 60
    version = client.get("/models/tiny-images").json()["version"]
    assert (after["version"], after["served_version"]) == ("1", version)
    named = statistics(client, f"/v2/models/tiny-images/versions/{version}/stats")
    assert named == [{**after, "version": version}]
    assert statistics(client, "/v2/models/tiny-images/versions/1/stats") == [after]
    everything = statistics(client, "/v2/models/stats")
    assert after in everything
    assert {row["name"] for row in everything} == {row["name"] for row in client.get("/models").json()["models"]}
    assert client.get("/v2/models/none/stats").status_code == 404
    assert client.get("/v2/models/tiny-images/versions/2/stats").status_code == 404


def test_statistics_equal_the_metrics(client: TestClient) -> None:
    client.post("/v2/models/tiny-images/infer", json=GOOD)
    text = client.get("/metrics").text
    [model] = statistics(client, "/v2/models/tiny-images/stats")
    expected = {
        'ekiben_engine_items_total{model="tiny-images",outcome="executed"': model["inference_count"],
        'ekiben_engine_request_seconds_count{model="tiny-images",outcome="success"': model["inference_stats"][
            "success"
        ]["count"],
        'ekiben_engine_compute_seconds_count{model="tiny-images"': model["inference_stats"]["compute_infer"]["count"],
    }
    for start, number in expected.items():
        [line] = [line for line in text.splitlines() if line.startswith(start)]
        assert float(line.rpartition(" ")[2]) == number > 0


def test_statistics_cover_every_worker(served_bundles: Path, tmp_path: Path) -> None:
    content, kind = orjson.dumps(GOOD), "application/json"
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path) as server:
        wait_until(lambda: counted(server, "ekiben_ready_workers") == 2)
        for _ in range(24):  # a connection each, so that both workers have some
            assert ask(server.port, "POST", "/v2/models/tiny-images/infer", content, content_type=kind)[0] == 200
        family = 'ekiben_engine_request_seconds_count{model="tiny-images",outcome="success"'
        wait_until(lambda: counted(server, family) == 24)

        def statistics_of_one() -> Any:
            return orjson.loads(ask(server.port, "GET", "/v2/models/tiny-images/stats")[2])["model_stats"][0]

        # A worker publishes its counters once a second.
        wait_until(lambda: statistics_of_one()["inference_count"] == 72)
        time.sleep(2)
        model = statistics_of_one()
        assert model["inference_stats"]["success"]["count"] == 24
        batches = 'ekiben_engine_batches_total{mode="%s",model="tiny-images"'
        assert model["execution_count"] == sum(counted(server, batches % mode) for mode in ("inline", "thread"))
