"""A run folder becomes a bundle, and a run that does not is named."""

from pathlib import Path

import pytest

from export.chain import export_run
from export.process import NUM_GATES
from service.bundle import open_bundle
from tests.export.conftest import Runs
from tests.export.tiny import RECIPES
from training.checkpoint import RunError
from training.models import RECIPES as REGISTRY


@pytest.fixture(autouse=True)
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "tiny-rnn", RECIPES["tiny-rnn"])


def test_a_run_is_exported_the_same_way_twice(runs: Runs, tmp_path: Path) -> None:
    folder, gates = runs("tiny-rnn").folder, list[str]()
    first = export_run(folder, tmp_path, gates.append)
    assert export_run(folder, tmp_path, lambda gate: None) == first
    assert open_bundle(tmp_path / "tiny-rnn" / first.version).manifest == first
    assert len(gates) == NUM_GATES
    assert (gates[0], gates[-1]) == ("load", "bundle")


def test_a_folder_without_a_run_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing: there is no checkpoint"):
        export_run(tmp_path / "nothing", tmp_path / "bundles", lambda gate: None)
    assert not (tmp_path / "bundles").exists()
