"""The commands and variables of the manifests start a service whose probes answer as the manifests ask."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, load
from tests.e2e.serving import ROOT, environment, start
from tests.service.bundles import NAMES
from tests.service.fetch.registry_server import registry_server
from tests.service.hosts import GRANIAN, ask, wait_until
from tests.service.key_files import write_keys

MODEL = NAMES["image-classifier"]
POD = "10.1.2.3:3000"


def container_of(path: str) -> dict[str, Any]:
    spec = load(KUBERNETES / path)[0]["spec"]
    [container] = (spec["template"]["spec"] if "template" in spec else spec)["containers"]
    return dict(container)


@pytest.mark.parametrize("path", ["base/deployment.yaml", "kserve/serving-runtime.yaml"])
def test_the_probes_of_a_container_answer_without_a_key(path: str, served_bundles: Path, tmp_path: Path) -> None:
    container = container_of(path)
    keys = write_keys(tmp_path / "keys", scraper="scopes=metrics", client="scopes=infer,models")
    places = {
        "/etc/ekiben/keys": str(tmp_path),
        "/bundles": str(served_bundles),
        "/mnt/models": str(served_bundles),
        "{{.Name}}": MODEL,
    }
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    for place, here in places.items():
        values = {
            name: here + value.removeprefix(place) if value.startswith(place) else value
            for name, value in values.items()
        }
    command = [*GRANIAN, *container["args"]]
    with start(command, env=environment(**values), cwd=ROOT, log=tmp_path / "log") as host:
        bearer = {"authorization": f"Bearer {keys['scraper']}"}
        options = dict(itertools.pairwise(container["args"]))
        ready = f"\nekiben_ready_workers {float(options.get('--workers', 1))}\n".encode()
        # Prometheus and probes name the address of the pod.
        wait_until(lambda: ready in ask(host.port, "GET", "/metrics", host=POD, **bearer)[2])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert ask(host.port, "GET", container[probe]["httpGet"]["path"], host=POD)[0] == 200
        is_open = values.get("EKIBEN_ALLOW_ANONYMOUS") == "true"
        name = "ekiben.default.svc.cluster.local"
        assert ask(host.port, "GET", f"/v2/models/{MODEL}/ready", host=name)[0] == (200 if is_open else 401)
        bearer = {"authorization": f"Bearer {keys['client']}"}
        assert ask(host.port, "GET", f"/v2/models/{MODEL}/ready", host=name, **bearer)[0] == 200


def test_the_runtime_of_kserve_is_not_ready_without_the_model_of_its_name(served_bundles: Path, tmp_path: Path) -> None:
    container = container_of("kserve/serving-runtime.yaml")
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    values |= {"EKIBEN_BUNDLES": str(served_bundles), "EKIBEN_READY_WHEN": "another-model"}
    command = [*GRANIAN, *container["args"]]
    with start(command, env=environment(**values), cwd=ROOT, log=tmp_path / "log", status=503) as host:
        status, _, answer = ask(host.port, "GET", container["readinessProbe"]["httpGet"]["path"])
        assert status == 503
        assert b"another-model" in answer


def test_the_init_container_fetches_bundles_for_the_service(served_bundles: Path, tmp_path: Path) -> None:
    component = yaml.safe_load((KUBERNETES / "components/bundles-fetch/kustomization.yaml").read_text())
    [container] = yaml.safe_load(component["patches"][0]["patch"])[0]["value"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    version = (served_bundles / MODEL / "current").read_text().strip()
    program, *module = container["command"]
    assert program == "python"
    with registry_server() as registry:
        place = registry.place(registry.push_folder(served_bundles / MODEL / version))
        placeholder, _, _ = container["args"][0].rpartition("@sha256:")
        assert placeholder.startswith("oci://")
        env = environment(**{name: str(tmp_path) for name, value in values.items() if value == "/bundles"})
        subprocess.run([sys.executable, *module, place], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / MODEL / "current").read_text().strip() == version


def test_the_gpu_overlay_demands_a_gpu() -> None:
    container = container_of("overlays/gpu/gpu.yaml")
    assert {"name": "EKIBEN_DEVICE", "value": "cuda"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
