"""Fixtures: one tiny model of each family, and calls of the task handlers."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from service.bundle import open_bundle
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.errors import EkibenError
from service.tasks.body import parse_request
from service.tasks.predict import PredictRequest, predict
from service.tasks.replay import answer_request
from tests.service.bundles import FAMILIES, NAMES, write_bundle
from tests.service.pairs import ALL_PAIRS, load_pair

RunTask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root: Path = tmp_path_factory.mktemp("bundles")
    bundles = {family: open_bundle(write_bundle(root, family)) for family in FAMILIES}
    return {
        family: Model(
            manifest=bundle.manifest,
            session=Session(bundle.model, manifest=bundle.manifest, device="cpu"),
            tokenizer=Tokenizer.from_str(bundle.tokenizer) if bundle.tokenizer else None,
        )
        for family, bundle in bundles.items()
    }


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def run_task(models: dict[str, Model], runner: Runner) -> RunTask:
    """Function `run_task(family, **fields)` that answers a request and returns the answer."""

    def run_task(family: str, **body: Any) -> dict[str, Any]:
        call: Coroutine[Any, Any, dict[str, Any]] = answer_request(
            models[family], runner, {"model": NAMES[family], **body}
        )
        return asyncio.run(call)

    return run_task


@pytest.fixture(scope="session")
def refusal(run_task: RunTask) -> Callable[..., tuple[str, str]]:
    """Function `refusal(family, **fields)` that returns pointer and detail of the first fault."""

    def refusal(family: str, **body: Any) -> tuple[str, str]:
        with pytest.raises(EkibenError) as caught:
            run_task(family, **body)
        return caught.value.faults[0].pointer, caught.value.faults[0].detail

    return refusal


@pytest.fixture(scope="session")
def pair_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The models of `tests.service.pairs`."""
    root = tmp_path_factory.mktemp("pairs")
    return {name: load_pair(root, name) for name in ALL_PAIRS}


@pytest.fixture(scope="session")
def predict_pair(pair_models: dict[str, Model], runner: Runner) -> RunTask:
    """Function `predict_pair(name, **fields)` that returns the predictions of POST /predict."""

    def predict_pair(name: str, **fields: Any) -> Any:
        request = parse_request(PredictRequest, {"model": name, **fields})
        answer = asyncio.run(predict(pair_models[name], runner, request, runner.new_context()))
        return answer["predictions"]

    return predict_pair


@pytest.fixture(scope="session")
def pair_refusal(predict_pair: RunTask) -> Callable[..., tuple[str, str]]:
    """Function `pair_refusal(name, **fields)` that returns pointer and detail of the first fault."""

    def pair_refusal(name: str, **fields: Any) -> tuple[str, str]:
        with pytest.raises(EkibenError) as caught:
            predict_pair(name, **fields)
        return caught.value.faults[0].pointer, caught.value.faults[0].detail

    return pair_refusal
