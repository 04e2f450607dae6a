"""The application of docs/kubernetes.md in Ray Serve, where that is installed, answers as the service does."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, environment, free_port
from tests.service.hosts import GRANIAN, IMAGES, classify, running_server
from tests.service.scoring.engines.started_cluster import ray_environment

PYTHON = ROOT / ".venv-ray-serve" / "bin" / "python"
# Ray has options for its proxy in code alone.
CLIENT = """
import sys, time, urllib.error, urllib.request
import ray
from ray import serve
from serve_app import app

port, body = int(sys.argv[1]), sys.argv[2].encode()
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(app)
url = f"http://127.0.0.1:{port}"
while True:
    try:
        urllib.request.urlopen(f"{url}/readyz").close()
        break
    except urllib.error.HTTPError as error:
        assert error.code == 503
        time.sleep(0.1)
request = urllib.request.Request(f"{url}/classify", body, {"content-type": "application/json"})
print("answer", urllib.request.urlopen(request).read().decode())
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.timeout(900)
def test_a_replica_answers_as_the_service_does(served_bundles: Path, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("there is no .venv-ray-serve: make prove-frameworks installs it")
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "serve.ingress" in block]
    (tmp_path / "serve_app.py").write_text(code)
    settings = {"EKIBEN_BUNDLES": str(served_bundles), "BENTOML_HOME": str(tmp_path)}
    with ray_environment() as variables:
        env = environment(**settings, **variables, PYTHONPATH=f"{ROOT}:{tmp_path}")
        command = [PYTHON, "-c", CLIENT, str(free_port()), IMAGES]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    answer = json.loads(line.removeprefix("answer "))
    with running_server(GRANIAN, served_bundles, tmp_path) as server:
        assert answer == json.loads(classify(server.port)[2])
