"""The SLO benchmark on the real service."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.serving import ROOT


def test_its_accuracy_is_that_of_the_export(server: str, bundles: Path, runs: Path, tmp_path: Path) -> None:
    options = ["--data", str(runs / "mnist-cnn" / "test.safetensors"), "--json", str(tmp_path / "assessment.json")]
    command = [sys.executable, "-m", "benchmarks.slo", "--url", server, "--model", "mnist-cnn", "--seconds", "1"]
    done = subprocess.run(
        [*command, "--scenario", "accuracy", "offline", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assessment = json.loads((tmp_path / "assessment.json").read_text())
    current = (bundles / "mnist-cnn" / "current").read_text().strip()
    manifest = json.loads((bundles / "mnist-cnn" / current / "manifest.json").read_text())
    [expected] = {float(value) for value in re.findall(r'"test_accuracy": ([0-9.]+)', json.dumps(manifest))}
    assert assessment["accuracy"] == expected
    [offline] = assessment["runs"]
    assert (offline["scenario"], offline["failures"]) == ("offline", {})
