"""A second model of images and of texts beside the tiny ones, and passes in this process."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from service.bundle import RequestCase, open_bundle
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.scoring import execution, run
from service.scoring.result import Result
from service.tasks.replay import answer_request_sync
from tests.service.bundles import HEADS, bundle_files, write_bundle
from tests.service.requests import request_body
from tests.service.scoring.conftest import run_here

ScorePass = Callable[..., dict[str, Result]]
OTHERS = {"image-classifier": "other-images", "text-classifier": "other-texts"}
IMAGES, TEXTS = ("tiny-images", "other-images"), ("tiny-texts", "other-texts")


@pytest.fixture(scope="session")
def pass_bundles(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundles, and models whose labels are in another order; there are two versions of `other-texts`."""
    root, staging = tmp_path_factory.mktemp("pass") / "bundles", tmp_path_factory.mktemp("candidates")
    shutil.copytree(served_bundles, root)
    for family, name in OTHERS.items():
        labels = HEADS[family]["labels"]
        for summary in ("Another model.", "A newer version of it.")[: 2 if family == "text-classifier" else 1]:
            fields = {
                "name": name,
                "summary": summary,
                "head": {**HEADS[family], "labels": (*labels[1:], labels[0])},
            }
            candidate = open_bundle(write_bundle(staging, family, **fields))
            model = Model(
                manifest=candidate.manifest,
                session=Session(candidate.model, manifest=candidate.manifest, device="cpu"),
                tokenizer=Tokenizer.from_str(candidate.tokenizer) if candidate.tokenizer else None,
            )
            request = {**request_body(family), "model": name}
            case = RequestCase(request=request, answer=answer_request_sync(model, request))
            write_bundle(root, family, files=bundle_files(family, requests=[case]), **fields)
    return root


@pytest.fixture
def score_pass(pass_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> ScorePass:
    """score_pass(models, input, output, **options)."""
    monkeypatch.setitem(execution.ENGINES, "here", run_here)

    def score_pass(models: Sequence[str], source: Any, output: Path, **options: Any) -> dict[str, Result]:
        return run.score(list(models), source, output, **{**OPTIONS, "bundles": pass_bundles, **options})

    return score_pass


@pytest.fixture
def score_one(pass_bundles: Path, score_pass: ScorePass) -> Callable[..., Result]:
    """score_one(model, input, output, **options): a job of its own."""

    def score_one(model: str, source: Any, output: Path, **options: Any) -> Result:
        return run.score(model, source, output, **{**OPTIONS, "bundles": pass_bundles, **options})

    return score_one


OPTIONS: dict[str, Any] = {"engine": "here", "device": "cpu", "shard_rows": 16, "check": False}
