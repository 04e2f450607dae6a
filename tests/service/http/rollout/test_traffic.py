"""A candidate answers its share, is compared on real requests, and is stopped for all workers if it differs."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.engine.context import RequestContext
from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from service.errors import EkibenError, Slug
from service.http.rollout.comparison import read_answer
from service.http.rollout.traffic import Inference, Rollout, View
from service.http.wire.messages import ClientDisconnectedError, Response
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.engine.versions import FAMILY, NAME, differing_graph, loader, set_candidate, set_current, slow_graph
from tests.service.hosts import GRANIAN, JSON, ask, counted, running_server, wait_until
from tests.service.poisoned import poisoned_graph, poisoned_item, write_whole_bundle

HOSTS = {"granian": ((*GRANIAN, "--workers", "2"), 2), "bentoml": (SERVE, 1)}
CANDIDATE = f"{NAME}@candidate"
SEEDS = count()  # of images, so that no two are the same


@contextmanager
def serving(host: str, root: Path, folder: Path, **settings: str) -> Iterator[ServerProcess]:
    command, num_workers = HOSTS[host]
    settings = {"EKIBEN_POLL_S": "0.1", **settings}
    with running_server(command, root, folder, **settings) as started:
        series = f'ekiben_model_ready{{model="{NAME}"'
        wait_until(lambda: counted(started, series) == 2 * num_workers)
        yield started


def write_versions(root: Path, differing: bytes) -> tuple[str, str]:
    """Write the usual version, and a candidate with this graph; return both versions."""
    candidate = write_whole_bundle(root.parent, FAMILY, NAME, model=differing).name
    current = write_whole_bundle(root.parent, FAMILY, NAME).name
    set_candidate(root, candidate)
    return current, candidate


def images(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (1, 4, 4), dtype=np.uint8).tolist()


def classify(host: ServerProcess, items: Any) -> dict[str, Any]:
    status, _, content = ask(host.port, "POST", "/classify", json.dumps({"model": NAME, "images": items}), **JSON)
    assert status == 200, content
    answer: dict[str, Any] = json.loads(content)
    return answer


def load(host: ServerProcess, num_requests: int, send: Callable[[ServerProcess, int], str]) -> Counter[str]:
    with ThreadPoolExecutor(4) as pool:
        seeds = [next(SEEDS) for _ in range(num_requests)]
        return Counter(pool.map(lambda seed: send(host, seed), seeds))


def version_of(host: ServerProcess, seed: int) -> str:
    return str(classify(host, images(seed))["version"])


def comparison(host: ServerProcess) -> dict[str, Any]:
    rows = json.loads(ask(host.port, "GET", "/models")[2])["models"]
    [row] = [row for row in rows if row["name"] == CANDIDATE]
    found: dict[str, Any] = row["comparison"]
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_a_shadow_that_differs_is_noticed_named_and_stopped(host: str, tmp_path: Path) -> None:
    """One image of 16 gets another label from the candidate, which no client ever sees."""
    current, candidate = write_versions(tmp_path / "bundles", differing_graph(16))
    with serving(host, tmp_path / "bundles", tmp_path, EKIBEN_MAX_DIFFERENCE="0.05") as started:

        def stopped() -> bool:
            assert set(load(started, 50, version_of)) == {current}
            found.update(comparison(started))
            return bool(found["decision"] == "stopped")

        found: dict[str, Any] = {}
        wait_until(stopped)
        assert found["with"] == current
        assert found["different"] >= 3
        assert "/predictions/0/label is '" in found["examples"][0]
        log = (tmp_path / "log").read_text()
        assert f"{NAME}: candidate {candidate} is stopped: " in log
        assert f"{NAME}: candidate {candidate} against {current}: request " in log
        series = f'ekiben_candidate_stopped{{model="{NAME}",version="{candidate}"}}'
        wait_until(lambda: counted(started, series) == 1)
        labels = f'model="{NAME}",outcome="different",version="{candidate}"'
        wait_until(lambda: counted(started, f"ekiben_candidate_answers_total{{{labels}}}") >= found["different"])

        def compares_nothing() -> bool:
            """Whether requests to both workers, which exchange their counts twice a second, add no comparison."""
            load(started, 50, version_of)
            before = comparison(started)["compared"]
            time.sleep(1)
            load(started, 50, version_of)
            return bool(comparison(started)["compared"] == before)

        wait_until(compares_nothing)
        assert ask(started.port, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize("host", HOSTS)
def test_a_canary_answers_its_share_until_it_is_stopped(host: str, tmp_path: Path) -> None:
    current, candidate = write_versions(tmp_path / "bundles", differing_graph(64))
    settings = {"EKIBEN_CANARY": "0.5", "EKIBEN_MAX_DIFFERENCE": "0.2"}
    with serving(host, tmp_path / "bundles", tmp_path, **settings) as started:
        first = load(started, 40, version_of)
        assert set(first) == {current, candidate}, "by chance once in 2^39 runs"
        wait_until(lambda: load(started, 50, version_of) == {current: 50})
        assert comparison(started)["decision"] == "stopped"


def test_an_equal_candidate_passes_and_answers_on(tmp_path: Path) -> None:
    """Another graph, whose answers are those of the serving version, within the tolerance."""
    current, candidate = write_versions(tmp_path / "bundles", differing_graph(0))
    settings = {"EKIBEN_CANARY": "0.5", "EKIBEN_MAX_DIFFERENCE": "0.1"}
    with serving("granian", tmp_path / "bundles", tmp_path, **settings) as started:
        wait_until(lambda: bool(load(started, 50, version_of)) and comparison(started)["decision"] == "passed")
        assert comparison(started)["different"] == 0
        assert set(load(started, 40, version_of)) == {current, candidate}
        set_current(tmp_path / "bundles", candidate)
        (tmp_path / "bundles" / NAME / "candidate").unlink()
        wait_until(lambda: load(started, 20, version_of) == {candidate: 20})
        wait_until(lambda: CANDIDATE not in ask(started.port, "GET", "/models")[2].decode())


def test_a_request_that_the_candidate_fails_is_answered_by_the_serving_version(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    current, candidate = write_versions(root, poisoned_graph("image-classifier"))
    item = poisoned_item("image-classifier")
    with serving("granian", root, tmp_path, EKIBEN_CANARY="1", EKIBEN_MAX_DIFFERENCE="0.5") as started:
        assert classify(started, images(1))["version"] == candidate
        answers = [classify(started, [item]) for _ in range(40)]
        assert {answer["version"] for answer in answers} == {current}
        wait_until(lambda: comparison(started)["decision"] == "stopped")
        assert comparison(started)["failed"] >= 4
        assert "not-finite" in comparison(started)["examples"][0]


def test_a_candidate_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    current = write_whole_bundle(tmp_path, FAMILY, NAME).name
    set_candidate(root, "0123456789ab")
    with running_server((*GRANIAN,), root, tmp_path, EKIBEN_POLL_S="0.1", EKIBEN_CANARY="1") as started:
        wait_until(lambda: CANDIDATE in ask(started.port, "GET", "/models")[2].decode())
        assert ask(started.port, "GET", "/readyz")[0] == 200
        assert set(load(started, 20, version_of)) == {current}
        assert comparison(started) is None


def test_an_answer_is_given_although_the_model_is_unloaded_meanwhile(tmp_path: Path) -> None:
    """Nothing is compared then, and no error takes the place of the answer."""
    write_versions(tmp_path / "bundles", differing_graph(16))
    repository = Repository(tmp_path / "bundles", loader())
    repository.refresh()
    state: Any = SimpleNamespace(repository=repository, runner=Runner())
    context = state.runner.new_context()
    answered = Response("application/json", b"{}")

    async def handle(_: Any, context: RequestContext) -> Response:
        context.model, context.version = NAME, repository.get(NAME).manifest.version
        repository.unload(NAME)
        return answered

    rollout = Rollout(canary=0, shadow=1, tolerance=0)
    inference = Inference(route="/classify", request_id="1", names_version=False, handle=handle, content=read_answer)
    assert asyncio.run(rollout.answer(state, inference, context)) == answered
    repository.close()


Versions = tuple[Repository, str, str]


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Versions]:
    """A repository with a serving version and a candidate, both READY, and their versions."""
    current, candidate = write_versions(tmp_path / "bundles", differing_graph(16))
    repository = Repository(tmp_path / "bundles", loader())
    repository.refresh()
    yield repository, current, candidate
    repository.close()


def roll_out(
    repository: Repository, answers: dict[str, Response | Exception], *, canary: float
) -> tuple[str, dict[str, Any]]:
    """Return the version that answers one request, and how the versions compare."""
    state: Any = View(**{**dict.fromkeys(View.__dataclass_fields__), "repository": repository, "runner": Runner()})

    async def handle(state: Any, context: RequestContext) -> Response:
        context.model, context.version = NAME, state.repository.get(NAME).manifest.version
        answer = answers[context.version]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def answer() -> str:
        rollout = Rollout(canary=canary, shadow=1, tolerance=0)
        context = state.runner.new_context()
        inference = Inference(
            route="/classify", request_id="7", names_version=False, handle=handle, content=read_answer
        )
        try:
            response = await rollout.answer(state, inference, context)
        finally:
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
        assert response == answers[context.version]
        return context.version

    return asyncio.run(answer()), tally_of(repository)


def tally_of(repository: Repository) -> dict[str, Any]:
    compared = repository.compared_versions(NAME)
    assert compared is not None
    return repository.tally(*compared).describe()


ANSWER = Response("application/json", b'{"label": "one"}')


@pytest.mark.parametrize("canary", [0, 1])
def test_an_unforeseen_error_of_the_candidate_counts_and_no_client_sees_it(
    canary: float, versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    repository, current, candidate = versions
    answers = {current: ANSWER, candidate: ValueError("an output of another shape")}
    version, found = roll_out(repository, answers, canary=canary)
    assert version == current
    assert (found["failed"], found["compared"]) == (1, 1)
    assert found["examples"] == ["request 7: internal: ValueError"]
    [record] = [record for record in caplog.records if "request 7" in record.getMessage()]
    assert record.getMessage() == f"{NAME}: version {candidate} failed request 7"
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [ClientDisconnectedError(), MemoryError()])
def test_an_error_that_says_nothing_of_the_candidate_is_not_counted(error: Exception, versions: Versions) -> None:
    repository, current, candidate = versions
    with pytest.raises(type(error)):
        roll_out(repository, {current: ANSWER, candidate: error}, canary=1)
    assert roll_out(repository, {current: ANSWER, candidate: error}, canary=0)[1]["skipped"] == 1


@pytest.mark.parametrize("slug", ["overloaded", "not-ready"])
def test_what_the_candidate_refuses_the_serving_version_answers(slug: Slug, versions: Versions) -> None:
    repository, current, candidate = versions
    version, found = roll_out(repository, {current: ANSWER, candidate: EkibenError(slug, "later")}, canary=1)
    assert version == current
    assert (found["skipped"], found["compared"]) == (1, 0)


def test_a_deadline_that_only_the_candidate_misses_is_its_failure(versions: Versions) -> None:
    repository, current, candidate = versions
    late = EkibenError("timeout", "late")
    with pytest.raises(EkibenError, match="late"):
        roll_out(repository, {current: ANSWER, candidate: late}, canary=1)
    found = tally_of(repository)
    assert (found["failed"], found["compared"]) == (1, 1)
    assert found["examples"] == ["request 7: timeout: no answer within 30 s"]
    with pytest.raises(EkibenError, match="late"):
        roll_out(repository, {current: late, candidate: late}, canary=1)
    assert (tally_of(repository)["failed"], tally_of(repository)["skipped"]) == (1, 1)


def test_a_candidate_that_is_too_slow_is_stopped(tmp_path: Path) -> None:
    """It takes longer than clients wait. While it computes, the serving version may have to refuse."""
    root = tmp_path / "bundles"
    candidate = write_whole_bundle(tmp_path, FAMILY, NAME, model=slow_graph(1_000_000), control_flow=True).name
    current = write_whole_bundle(tmp_path, FAMILY, NAME).name
    set_candidate(root, candidate)
    settings = {"EKIBEN_CANARY": "1", "EKIBEN_MAX_DIFFERENCE": "0.5", "EKIBEN_REQUEST_TIMEOUT_MS": "200"}
    with running_server(GRANIAN, root, tmp_path, EKIBEN_POLL_S="0.1", **settings) as started:
        wait_until(lambda: counted(started, f'ekiben_model_ready{{model="{NAME}"') == 2)

        def stopped() -> bool:
            for _ in range(20):
                body = json.dumps({"model": NAME, "images": images(next(SEEDS))})
                status, _, content = ask(started.port, "POST", "/classify", body, **JSON)
                assert status in {503, 504} or json.loads(content)["version"] == current
                time.sleep(0.05)
            return bool(comparison(started)["decision"] == "stopped")

        wait_until(stopped)
        assert "timeout: no answer within 0.2 s" in comparison(started)["examples"][0]
        assert load(started, 20, version_of) == {current: 20}


def test_an_error_of_the_serving_version_is_not_hidden(versions: Versions) -> None:
    repository, current, candidate = versions
    with pytest.raises(ValueError, match="broken"):
        roll_out(repository, {current: ValueError("broken"), candidate: ValueError("too")}, canary=1)
    version, found = roll_out(repository, {current: ValueError("broken"), candidate: ANSWER}, canary=1)
    assert (version, found["skipped"], found["compared"]) == (candidate, 1, 0)


@pytest.mark.parametrize("canary", [0, 1])
def test_answers_that_cannot_be_read_are_counted(canary: float, versions: Versions) -> None:
    repository, current, candidate = versions
    broken = Response("application/json", b"{")
    found = roll_out(repository, {current: broken, candidate: ANSWER}, canary=canary)[1]
    assert (found["skipped"], found["compared"]) == (1, 0)
    found = roll_out(repository, {current: ANSWER, candidate: broken}, canary=canary)[1]
    assert (found["skipped"], found["failed"], found["compared"]) == (1, 1, 1)
    assert found["examples"][0].startswith("request 7: its answer cannot be read: JSONDecodeError: ")


def test_a_request_that_names_a_version_takes_no_part(tmp_path: Path) -> None:
    """What it gets depends on no share, and it says nothing of the candidate."""
    root = tmp_path / "bundles"
    current, candidate = write_versions(root, differing_graph(0))
    document = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 4, 4], "data": [7] * 16}]}
    with serving("granian", root, tmp_path, EKIBEN_CANARY="0.5", EKIBEN_MAX_DIFFERENCE="0.5") as started:

        def answers(path: str, **fields: str) -> set[tuple[int, str | None]]:
            """The statuses of 40 requests, and the versions that answered them."""
            body = json.dumps({**document, **fields})
            found = [ask(started.port, "POST", f"/v2/models/{path}/infer", body, **JSON) for _ in range(40)]
            return {(status, json.loads(content).get("model_version")) for status, _, content in found}

        assert answers(f"{NAME}/versions/{current}") == {(200, current)}
        assert answers(NAME, model_version=current) == {(200, current)}
        assert answers(f"{NAME}/versions/{candidate}") == {(404, None)}
        assert answers(NAME, model_version=candidate) == {(422, None)}
        assert answers(f"{CANDIDATE}/versions/{candidate}") == {(200, candidate)}
        assert answers(CANDIDATE, model_version=candidate) == {(200, candidate)}
        assert answers(f"{CANDIDATE}/versions/{current}") == {(404, None)}
        assert (comparison(started)["compared"], comparison(started)["skipped"]) == (0, 0)
        assert answers(f"{NAME}/versions/1", model_version="1") == {(200, current), (200, candidate)}, "once in 2^39"
