"""Each export runs in its own process, and a failing one does not affect the others."""

from pathlib import Path

import pytest
from rich.console import Console

from export.process import ExportJob, export_all
from service.bundle import current_version, open_bundle
from tests.export.conftest import registered_run
from tests.export.sources.own_model import options, write_own_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    (root / "broken-run").mkdir()
    return [registered_run(root / "my-digits"), root / "broken-run"]


def test_a_refused_run_leaves_no_files_and_stops_no_other_run(folders: list[Path], tmp_path: Path) -> None:
    written, refused = export_all([ExportJob.of_run(folder) for folder in folders], tmp_path, 2, Console(quiet=True))
    assert (written.name, refused.name) == ("my-digits", "broken-run")
    assert refused.manifest is None
    assert "there is no checkpoint.json" in refused.reason
    assert written.manifest is not None
    assert open_bundle(tmp_path / "my-digits" / current_version(tmp_path / "my-digits")).manifest == written.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["my-digits"]


def test_a_process_that_dies_is_reported_as_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.process.child_main", exit_with_3)
    [result] = export_all([ExportJob.of_run(tmp_path / "any")], tmp_path, 1, Console(quiet=True))
    assert result.reason == "its process ended with exit status 3"


def test_code_that_exits_or_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of somebody's code would keep the process alive for ever."""
    words = write_own_model(tmp_path, module="own_endless_net")
    code = "import sys, threading, time\nthreading.Thread(target=time.sleep, args=(9999,)).start()\nsys.exit('bye')"
    (tmp_path / "own_endless_net.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("export.process.EXIT_TIMEOUT_S", 0.1)
    job = ExportJob(name="own", command="module", options=options(words))
    [result] = export_all([job], tmp_path / "bundles", 1, Console(quiet=True))
    assert result.reason == "own_endless_net:Net cannot be made: SystemExit: bye"


def exit_with_3(*_: object) -> None:
    raise SystemExit(3)
