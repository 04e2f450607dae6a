"""The Kubernetes manifests run valid commands, without root."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.scoring.command.command import EXIT_CHANGED, EXIT_FAILED, EXIT_REJECTED
from service.scoring.command.parser import command_parser

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "scoring"
NIGHTLY = FOLDER / "cron-job.yaml"
JOBS = [*sorted(FOLDER.glob("job*.yaml")), NIGHTLY]


def load(path: Path) -> dict[str, Any]:
    [document] = list(yaml.safe_load_all(path.read_text()))
    return dict(document)


def job_of(path: Path) -> dict[str, Any]:
    """The specification of a Job, or of those of a CronJob."""
    document = load(path)
    assert (document["apiVersion"], document["kind"]) == ("batch/v1", "CronJob" if path == NIGHTLY else "Job")
    return dict(document["spec"]["jobTemplate"]["spec"] if path == NIGHTLY else document["spec"])


def test_a_nightly_job_scores_what_is_new_and_is_not_overtaken() -> None:
    assert load(NIGHTLY)["spec"]["concurrencyPolicy"] == "Forbid"
    job = job_of(NIGHTLY)
    [container] = job["template"]["spec"]["containers"]
    arguments = command_parser().parse_args(container["args"])
    assert arguments.new_only
    assert "@" in arguments.models[0], "another version would belong to another output"
    [codes] = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert EXIT_CHANGED in codes["values"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_manifest_runs_a_valid_command(path: Path) -> None:
    [container] = job_of(path)["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "service.scoring"]
    arguments = command_parser().parse_args(container["args"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert arguments.inputs[0] in mounts
    assert str(Path(arguments.output).parent) in mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job_of(path)["template"]["spec"]["volumes"]
    }


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_pod_is_retried_only_where_a_retry_can_help(path: Path) -> None:
    job = job_of(path)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    codes = [
        code for rule in job["podFailurePolicy"]["rules"] for code in rule.get("onExitCodes", {}).get("values", [])
    ]
    assert EXIT_REJECTED in codes
    assert EXIT_FAILED not in codes


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_pod_runs_without_privileges(path: Path) -> None:
    pod = job_of(path)["template"]["spec"]
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
