"""A short form of `make prove-door`: broken and odd requests are refused in the dialect, and no answer is wrong."""

import random
from collections import Counter
from pathlib import Path

from starlette.testclient import TestClient

from benchmarks.proof.inference_requests import Oracle, run_case

NUM_CASES = 500


def test_requests_at_random_are_refused_or_answered_right(client: TestClient, tmp_path: Path) -> None:
    def send(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        response = client.post(path, content=body, headers=headers)
        return response.status_code, dict(response.headers), response.content

    rng, oracle = random.Random(20), Oracle(tmp_path)
    statuses, failures = Counter[int](), []
    for case in range(NUM_CASES):
        status, reason = run_case(rng, send, oracle)
        statuses[status] += 1
        if reason is not None:
            failures.append((case, reason))
    assert not failures
    assert min(statuses[status] for status in (200, 400, 422)) > NUM_CASES / 50, statuses
