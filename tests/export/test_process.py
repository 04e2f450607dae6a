"""One process a model, and what becomes of those that fail."""

from pathlib import Path

import pytest
from rich.console import Console

from export.process import export_all
from service.bundle import current_version, open_bundle
from tests.export.conftest import registered_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    (root / "broken-run").mkdir()
    return [registered_run(root / "my-digits"), root / "broken-run"]


def test_a_refused_run_stops_no_other_and_leaves_nothing(folders: list[Path], tmp_path: Path) -> None:
    outcomes = export_all(folders, tmp_path, 2, Console(quiet=True))
    written, refused = outcomes
    assert (written.name, refused.name) == ("my-digits", "broken-run")
    assert refused.manifest is None
    assert "there is no checkpoint.json" in refused.reason
    assert written.manifest is not None
    assert open_bundle(tmp_path / "my-digits" / current_version(tmp_path / "my-digits")).manifest == written.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["my-digits"]


def test_a_process_that_dies_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.process.work", dies)
    [outcome] = export_all([tmp_path / "any"], tmp_path, 1, Console(quiet=True))
    assert outcome.reason == "its process ended with exit status 3"


def dies(*_: object) -> None:
    raise SystemExit(3)
