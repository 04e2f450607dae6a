"""Run the pods of the Kubernetes manifests with podman, which plays a part of what a kubelet does.

    python -m benchmarks.deploy.pod [--image ekiben-prove:0.1.0] [--bundles bundles]

The Deployment of overlays/cpu is taken as kustomize builds it: arguments, variables, user, security context, limits,
volumes and the secret with the keys. podman 4 runs no HTTP probes without curl in the image, no `preStop.sleep` and
no claims: the probes are asked from here, and the claim is a folder. The pod must become ready, answer with a key and
refuse without one, be unable to write but to /tmp, and end with exit code 0 within its grace period.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from benchmarks.deploy.container import NAME, PROBE, REQUESTS
from benchmarks.deploy.engine import PODMAN, output, unmet_requirement
from benchmarks.requests import wait_until_ready
from tests.e2e.serving import ROOT, free_port

OVERLAY = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
SECRET = "ekiben-keys"
CONTAINER, POD = "ekiben-pod-0-ekiben", "ekiben-pod-0"
# Those that a container without privileges may set, see benchmarks.deploy.engine.
CONFIGURATION = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'


def deployment(image: str, bundles: Path, port: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the Deployment, adapted to `podman play kube`, and its HTTP probes by name."""
    resources = yaml.safe_load_all(output("kubectl", "kustomize", OVERLAY))
    found: dict[str, Any] = next(one for one in resources if one["kind"] == "Deployment")
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container |= {"image": f"localhost/{image}", "imagePullPolicy": "Never"}
    probes = {name: container.pop(name)["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    del container["lifecycle"], container["ports"]  # the pod has the network of this machine
    container["args"][container["args"].index("--port") + 1] = str(port)
    for volume in pod["volumes"]:
        if "secret" in volume:
            volume["secret"]["optional"] = False  # podman 4.3 reads it without looking whether it is there
        if volume.pop("persistentVolumeClaim", None):
            volume["hostPath"] = {"path": str(bundles.resolve()), "type": "Directory"}
    return found, probes


def status(port: int, path: str, key: str = "") -> int:
    """Return the status of a request with an example, if the path has one."""
    body = json.dumps(REQUESTS[path]).encode() if path in REQUESTS else None
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default=f"{NAME}:0.1.0", help="an image that was built before")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    options = parser.parse_args()
    if reason := unmet_requirement() or (None if shutil.which("kubectl") else "install kubectl"):
        sys.exit(f"the pod cannot be run here: {reason}")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        made = subprocess.run(
            [sys.executable, "-m", "service.keys", "new", "web"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        key = made.stderr.strip().splitlines()[0]
        # podman 4 takes the data of a secret as it is, where Kubernetes has base64.
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": {"keys": made.stdout}}
        (folder / "secret.yaml").write_text(yaml.safe_dump(secret))
        found, probes = deployment(options.image, options.bundles, port)
        (folder / "pod.yaml").write_text(yaml.safe_dump(found))
        (folder / "containers.conf").write_text(CONFIGURATION)
        podman = ("env", f"CONTAINERS_CONF={folder / 'containers.conf'}", *PODMAN)
        subprocess.run([*podman, "secret", "rm", SECRET], capture_output=True, check=False)
        output(*podman, "secret", "create", SECRET, folder / "secret.yaml")
        try:
            began = time.monotonic()
            output(*podman, "play", "kube", "--network", "host", folder / "pod.yaml")
            wait_until_ready(f"http://127.0.0.1:{port}", timeout_s=300)
            rows = {"ready, s": f"{time.monotonic() - began:.1f}"}
            rows |= {f"{probe}, {http['path']}": str(status(port, http["path"])) for probe, http in probes.items()}
            rows |= {f"{path} with a key": str(status(port, path, key)) for path in REQUESTS}
            rows["/classify without"] = str(status(port, "/classify"))
            inside = output(*podman, "exec", CONTAINER, "python", "-c", PROBE).split("|")
            rows |= dict(zip(("user", "writing", "cores seen", "memory limit seen, MiB"), inside, strict=False))
            output(
                *podman,
                "pod",
                "stop",
                "--time",
                str(found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]),
                POD,
            )
            rows["exit code"] = output(*podman, "inspect", "--format", "{{.State.ExitCode}}", CONTAINER)
        finally:
            subprocess.run([*podman, "pod", "rm", "--force", POD], capture_output=True, check=False)
            subprocess.run([*podman, "secret", "rm", SECRET], capture_output=True, check=False)
    print("| | |\n| --- | ---: |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    statuses = [value for name, value in rows.items() if "/" in name]
    expected = ["200"] * (len(statuses) - 1) + ["401"]
    sys.exit(
        statuses != expected
        or (rows["user"], rows["exit code"]) != ("65532", "0")
        or "Read-only" not in rows["writing"]
    )


if __name__ == "__main__":
    main()
