"""The command measures a server whose delays are known, and says why it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.slo.known_delays import delayed_server
from tests.e2e.serving import ROOT


def slo(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.slo", "--url", url, "--seconds", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_refused_query_is_no_answer(tmp_path: Path) -> None:
    with delayed_server(fail_every=10) as url:
        done = slo(
            url, "--model", "delayed", "--scenario", "single-stream", "--json", str(tmp_path / "assessment.json")
        )
    assert done.returncode == 1
    assessment = json.loads((tmp_path / "assessment.json").read_text())
    [run] = assessment["runs"]
    assert not assessment["holds"]
    assert not run["valid"]
    # The first run, which is not reported, may have ended between two failures.
    assert run["num_queries"] // 10 <= run["failures"]["status 503"] <= run["num_queries"] // 10 + 1
    assert "queries failed: status 503" in done.stdout


def test_a_stall_is_in_the_99th_percentile(tmp_path: Path) -> None:
    options = ["--model", "delayed", "--rate", "300", "--p99-ms", "500", "--json", str(tmp_path / "assessment.json")]
    # The first run has at most 200 queries, the one that is judged 662 or more.
    with delayed_server(delay_ms=5, stall_after=400, stall_s=1) as url:
        done = slo(url, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    [run] = json.loads((tmp_path / "assessment.json").read_text())["searched"]
    # The requests that were due in the first half of the stall waited at least half a second, and so for the rest.
    assert run["latency_ms"]["99.00"] >= 500
    assert "no rate keeps p99 <= 500 ms" in done.stdout


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    save_file({"inputs/y": np.zeros((2, 4), np.float32)}, tmp_path / "other.safetensors")
    with delayed_server() as stopped:
        pass
    done = slo(stopped, "--model", "delayed")
    assert (done.returncode, done.stderr.strip()) == (2, f"{stopped}/v2/models/delayed: [Errno 111] Connection refused")
    with delayed_server() as url:
        cases = {
            "there is no tensor inputs/x; the file has inputs/y": ["--data", str(tmp_path / "other.safetensors")],
            "--output: delayed has no output 'logits'; it has scores": ["--output", "logits"],
            "--scenario accuracy needs --data with targets": ["--scenario", "accuracy"],
            "--header: 'x' is not NAME: VALUE": ["--header", "x"],
        }
        for message, options in cases.items():
            done = slo(url, "--model", "delayed", *options)
            assert done.returncode == 2
            assert message in done.stderr
