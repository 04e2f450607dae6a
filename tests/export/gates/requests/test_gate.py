"""The service replays the request cases, and a request that it refuses is an export error."""

import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.requests.checked_request import candidate_model
from export.gates.requests.gate import check_requests
from service.tasks.replay import replay_requests
from tests.export.conftest import Candidates


def test_the_service_replays_the_cases(candidate: Candidate) -> None:
    cases = check_requests(candidate)
    assert len(cases) >= 4
    assert all("version" not in case.answer for case in cases)
    assert all(case.request["model"] == candidate.manifest.name for case in cases)
    replay_requests(candidate_model(candidate), cases)


def test_a_body_that_the_service_refuses_is_named(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidates("tiny-lstm")
    limits = candidate.manifest.limits.model_copy(update={"max_items": 1})
    strict = Candidate(
        source=candidate.source,
        model=candidate.model,
        manifest=candidate.manifest.model_copy(update={"limits": limits}),
    )
    with pytest.raises(ExportError, match=r"requests: body 1 \(2 sequences, top_k\): /sequences"):
        check_requests(strict)
