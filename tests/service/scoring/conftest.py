"""Fixtures that score the tiny bundles in this process, without worker processes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest

from service.engine.sessions.device import Device
from service.engine.sessions.model import Model
from service.scoring import execution, run
from service.scoring import shard as shard_module
from service.scoring.engines.engine import EngineContext, EngineResult, try_score
from service.scoring.job import Job
from service.scoring.model import load_bundle
from service.scoring.plan import SharedShard
from service.scoring.result import Result
from service.scoring.shard import Context
from tests.service.bundles import NAMES
from tests.service.scoring.inputs import FORMATS

Score = Callable[..., Result]
# By the device and the content of the bundle: most jobs score with one of the tiny bundles.
_models: dict[tuple[str, str], Model] = {}


def load_once(folder: Path, device: Device) -> Model:
    """Load and verify a bundle, unless one with the same bytes was loaded for the device before."""
    key = (device, tree_digest(folder))
    if key not in _models:
        _models[key] = load_bundle(folder, device)
    return _models[key]


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run_here(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    """An engine without worker processes, which loads each bundle once."""
    result = EngineResult()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_module, "load_bundle", load_once)
        worker = Context(jobs)
    for shard in shards:
        outcome = try_score(worker, shard, context.progress.add_done)
        result.computed.update(outcome.computed)
        if outcome.status != "done":
            result.failures.append(outcome.detail)
        if outcome.status == "failed":
            result.stopped = True
            break
    worker.close()
    return result


@pytest.fixture
def score(served_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """score(family, input, output, **options)."""
    monkeypatch.setitem(execution.ENGINES, "here", run_here)

    def score(family: str, source: Any, output: Path, **options: Any) -> Result:
        options = {
            "engine": "here",
            "bundles": served_bundles,
            "device": "cpu",
            "shard_rows": 16,
            "check": False,
            **options,
        }
        if family == "language-model" and "request" not in options:
            options["request"] = {"max_tokens": 5}
        return run.score(NAMES[family], source, output, **options)

    return score


@pytest.fixture
def make_input(tmp_path: Path) -> Callable[[str, int], tuple[str, Path]]:
    """make_input(format, rows) -> family of model, and the path of the input."""

    def make_input(name: str, rows: int) -> tuple[str, Path]:
        family, write = FORMATS[name]
        return family, write(tmp_path, rows)

    return make_input


@pytest.fixture(scope="session")
def models(served_bundles: Path) -> dict[str, Model]:
    return {
        family: load_bundle(served_bundles / name / (served_bundles / name / "current").read_text().strip(), "cpu")
        for family, name in NAMES.items()
    }


def predictions(output: Path) -> list[dict[str, Any]]:
    """Every row of a Parquet output, in order."""
    paths = sorted((output / "predictions").glob("*.parquet"))
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += pa.dataset.dataset(path).to_table().to_pylist()
    return rows


def rejects(output: Path) -> list[dict[str, Any]]:
    paths = sorted((output / "rejects").glob("*.jsonl")) if (output / "rejects").exists() else []
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def tree(output: Path) -> dict[str, bytes]:
    """The content of every file of an output but timing.json."""
    paths = (path for path in sorted(output.rglob("*")) if path.is_file() and path.name != "timing.json")
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}
