"""The Kubernetes manifests run valid commands, without root."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.scoring.__main__ import EXIT_FAILED, EXIT_REJECTED, command_parser

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "scoring"
JOBS = sorted(FOLDER.glob("job*.yaml"))


def load(path: Path) -> dict[str, Any]:
    [document] = list(yaml.safe_load_all(path.read_text()))
    return dict(document)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_manifest_runs_a_valid_command(path: Path) -> None:
    job = load(path)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "service.scoring"]
    arguments = command_parser().parse_args(container["args"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert arguments.inputs[0] in mounts
    assert str(Path(arguments.output).parent) in mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]
    }


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_pod_is_retried_only_where_a_retry_can_help(path: Path) -> None:
    job = load(path)["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    codes = [
        code for rule in job["podFailurePolicy"]["rules"] for code in rule.get("onExitCodes", {}).get("values", [])
    ]
    assert EXIT_REJECTED in codes
    assert EXIT_FAILED not in codes


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_pod_runs_without_privileges(path: Path) -> None:
    pod = load(path)["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]


def test_ray_manifest_runs_a_valid_command(tmp_path: Path) -> None:
    import ray

    job = load(FOLDER / "ray-job.yaml")
    assert job["kind"] == "RayJob"
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "service.scoring"]
    assert command_parser().parse_args(words[3:]).engine == "ray"
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    groups = job["spec"]["rayClusterSpec"]
    for template in (groups["headGroupSpec"]["template"], groups["workerGroupSpecs"][0]["template"]):
        assert {volume["name"] for volume in template["spec"]["volumes"]} == {"bundles", "input", "output"}
