"""A worker that is told to end answers until load balancers know, then those that it admitted, and is gone in time."""

import http.client
import json
import signal
import time
from pathlib import Path

import psutil

from tests.service.hosts import (
    GRANIAN,
    IMAGES,
    ask,
    classify,
    ended,
    finished,
    half_a_request,
    running_server,
    under_way,
    wait_until,
)


def test_sigterm_answers_for_a_while_and_then_admitted_requests_alone(served_bundles: Path, tmp_path: Path) -> None:
    with running_server(GRANIAN, served_bundles, tmp_path, EKIBEN_DRAIN_S="3") as host:
        slow = under_way(host)
        host.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(host.port, "GET", "/readyz")[0] == 503)
        assert classify(host.port)[0] == 200
        assert ask(host.port, "GET", "/readyz")[0] == 503
        wait_until(lambda: classify(host.port)[0] == 503)
        status, headers, refused = classify(host.port)
        assert (status, json.loads(refused)["code"]) == (503, "not-ready")
        assert headers["retry-after"] == "1"
        late = half_a_request(host.port)
        assert late.recv(13) == b"HTTP/1.1 503 "
        assert ask(host.port, "GET", "/v2/health/ready")[0] == 503
        assert ask(host.port, "GET", "/livez")[0] == 200
        status, said = finished(slow)
        assert status == 200
        assert json.loads(said)["predictions"]
        assert host.process.wait(timeout=20) == 0, "the body of a refused request is not awaited"
        late.close()


def test_a_client_that_sends_on_is_refused_and_not_cut_off(served_bundles: Path, tmp_path: Path) -> None:
    with running_server(GRANIAN, served_bundles, tmp_path, EKIBEN_DRAIN_S="0") as host:
        clients = [http.client.HTTPConnection("127.0.0.1", host.port, timeout=30) for _ in range(4)]
        waiting, is_told = list(clients), False
        for _ in range(1000):
            for client in list(waiting):
                client.request("POST", "/classify", IMAGES, {"content-type": "application/json"})
                response = client.getresponse()
                response.read()
                if response.status == 503:
                    waiting.remove(client)
            if not is_told:
                host.process.send_signal(signal.SIGTERM)
                is_told = True
            if not waiting:
                break
            time.sleep(0.02)
        assert not waiting
        assert host.process.wait(timeout=20) == 0
        for client in clients:
            client.close()


def test_a_stuck_request_does_not_outlive_the_grace_period(served_bundles: Path, tmp_path: Path) -> None:
    settings = {"EKIBEN_DRAIN_S": "0", "EKIBEN_GRACE_S": "4"}
    with running_server(GRANIAN, served_bundles, tmp_path, **settings) as host:
        stuck = under_way(host)
        workers = psutil.Process(host.process.pid).children(recursive=True)
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(timeout=20)
        assert all(ended(worker) for worker in workers)
        stuck.close()
