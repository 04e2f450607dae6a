"""Libraries beneath tell nobody of their use: onnxruntime's builds for Linux do unless they are told not to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPRESSED = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
MODULES = ("service.engine.sessions.session", "service.scoring.job", "export.candidate", "export.diff")


def left_behind(statement: str, home: Path) -> list[str]:
    """The files that a process of its own leaves in its home folder, nobody having asked it to be silent."""
    outside = {key: value for key, value in os.environ.items() if key not in SUPPRESSED}
    environment = {**outside, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("module", MODULES)
def test_onnxruntime_keeps_no_record_of_its_use(module: str, tmp_path: Path) -> None:
    assert not [name for name in left_behind(f"import {module}", tmp_path) if "onnxruntime" in name]


def test_it_would_if_nobody_told_it(tmp_path: Path) -> None:
    if not left_behind("import onnxruntime", tmp_path):
        pytest.skip("this build of onnxruntime has no telemetry, or knows a reason to be silent")


def test_others_are_told_too_and_a_choice_is_kept() -> None:
    statement = "import os, service; print(os.environ['BENTOML_DO_NOT_TRACK'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "1"}
    environment.pop("BENTOML_DO_NOT_TRACK", None)
    told = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["True", "1"]
