"""The service disables the telemetry of its dependencies; onnxruntime for Linux enables it by default."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPRESSED = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
MODULES = ("service.engine.sessions.session", "service.scoring.job", "export.candidate", "export.diff")


def files_written_to_home(statement: str, home: Path) -> list[str]:
    """Run the statement in a process that allows telemetry; return the files that it wrote to its home."""
    environment = {key: value for key, value in os.environ.items() if key not in SUPPRESSED}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    process = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("module", MODULES)
def test_onnxruntime_writes_no_telemetry_files(module: str, tmp_path: Path) -> None:
    assert not [name for name in files_written_to_home(f"import {module}", tmp_path) if "onnxruntime" in name]


def test_onnxruntime_writes_telemetry_files_by_default(tmp_path: Path) -> None:
    if not files_written_to_home("import onnxruntime", tmp_path):
        pytest.skip("this build of onnxruntime has no telemetry, or the environment disables it")


def test_telemetry_of_other_libraries_is_disabled_unless_the_user_set_it() -> None:
    statement = "import os, service; print(os.environ['BENTOML_DO_NOT_TRACK'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "1"}
    environment.pop("BENTOML_DO_NOT_TRACK", None)
    process = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["True", "1"]
