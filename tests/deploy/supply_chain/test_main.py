"""`python -m deploy.supply_chain` writes the documents that `make sbom` promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.supply_chain import __main__ as command
from deploy.supply_chain.licences import Licences

ROOT = Path(__file__).parents[3]


def test_it_writes_one_sbom_per_image_and_a_report(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "deploy.supply_chain", "--out", str(tmp_path)]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"serve.cdx.json", "gpu.cdx.json", "scoring.cdx.json", "export.cdx.json", "licences.md"}
    assert json.loads((tmp_path / "serve.cdx.json").read_text())["metadata"]["component"]["name"] == "ekiben-serve"
    assert "| certifi |" in (tmp_path / "licences.md").read_text()
    assert "every licence is allowed" in result.stdout


def test_a_licence_that_is_not_allowed_ends_it_without_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "read_licences", lambda: Licences(allowed={}, packages={"certifi": "MPL-2.0"}))
    monkeypatch.setattr(sys, "argv", ["supply_chain", "--image", "serve", "--out", str(tmp_path / "sbom")])
    with pytest.raises(SystemExit, match=r"certifi 2\S+: MPL-2.0: MPL-2.0 is not allowed in this image"):
        command.main()
    assert not (tmp_path / "sbom").exists()
