"""A run folder becomes a bundle; a folder without a run raises."""

from pathlib import Path

import pytest

from export.pipeline import export_run
from export.process import NUM_STAGES
from service.bundle import open_bundle
from tests.export.conftest import Runs
from tests.export.tiny import RECIPES
from training.checkpoint import RunError
from training.models import RECIPES as REGISTRY


@pytest.fixture(autouse=True)
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "tiny-rnn", RECIPES["tiny-rnn"])


def test_exporting_a_run_twice_gives_the_same_bundle(runs: Runs, tmp_path: Path) -> None:
    folder, stages = runs("tiny-rnn").folder, list[str]()
    first = export_run(folder, tmp_path, stages.append)
    assert export_run(folder, tmp_path, lambda stage: None) == first
    assert open_bundle(tmp_path / "tiny-rnn" / first.version).manifest == first
    assert len(stages) == NUM_STAGES
    assert (stages[0], stages[-1]) == ("load", "bundle")


def test_a_folder_without_a_run_raises_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing: there is no checkpoint"):
        export_run(tmp_path / "nothing", tmp_path / "bundles", lambda stage: None)
    assert not (tmp_path / "bundles").exists()
