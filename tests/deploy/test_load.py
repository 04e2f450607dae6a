"""The generator of load sends what the compose file tells it to, to a real service."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from tests.deploy.test_compose import DEPLOY, SERVICES, mounts
from tests.e2e.serving import ROOT, environment, serving
from tests.service.hosts import GRANIAN


def test_the_load_generator_sends_the_examples_of_the_models(served_bundles: Path, tmp_path: Path) -> None:
    load = SERVICES["load"]
    script = DEPLOY / mounts(load)[load["entrypoint"][1]]
    env = environment(EKIBEN_BUNDLES=str(served_bundles))
    with serving(GRANIAN, env=env, cwd=ROOT, log=tmp_path / "log") as address:
        options = [*load["command"][1:-1], "1"]
        command = [sys.executable, str(script), address, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    counts = json.loads(done.stdout)
    assert counts["200"] > 0
    assert set(counts) <= {"200", "503"}
