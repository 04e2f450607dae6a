"""Generated requests to every operation, in a short form of `python -m benchmarks.proof.openapi_cases`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.proof.openapi_cases import check_operations
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.hosts import GRANIAN, running_server

NUM_CASES = 400


@pytest.fixture(scope="module", params=[GRANIAN, SERVE], ids=["granian", "bentoml"])
def host(
    request: pytest.FixtureRequest, served_bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with running_server(request.param, served_bundles, tmp_path_factory.mktemp("host")) as started:
        yield started


def test_every_answer_is_as_documented(host: ServerProcess) -> None:
    tallies = check_operations(host.address, num_cases=NUM_CASES, seed_value=1)
    assert {tally.operation: tally.failures for tally in tallies if tally.failures} == {}
    assert [tally.operation for tally in tallies if not tally.statuses[200]] == []
    assert sum(tally.num_cases for tally in tallies) >= NUM_CASES
