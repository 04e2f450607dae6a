"""The manifests validate, refer to what exists, and agree with the service that they start."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.http.telemetry.exposition import FAMILIES
from tests.deploy.manifests import BUILT, FILES, KUBERNETES, KUSTOMIZATIONS, build, load, one, pod_templates
from tests.e2e.serving import ROOT

PATCHES = {KUBERNETES / "overlays/gpu/gpu.yaml"}
VERSION = "1.34"  # the first one in which `preStop.sleep` needs no feature gate
CUSTOM = {  # kinds that kubernetes-validate has no schemas of
    "InferenceService": "serving.kserve.io/v1beta1",
    "RayJob": "ray.io/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "ServingRuntime": "serving.kserve.io/v1alpha1",
}
OVERLAYS = [folder for folder in BUILT if folder.parts[0] == "overlays"]
BUNDLES = [folder for folder in KUSTOMIZATIONS if folder.name.startswith("bundles-")]
RESOURCES = [(path, resource) for path in FILES if path not in PATCHES for resource in load(path)]
BY_KIND = {resource["kind"]: resource for _, resource in RESOURCES if resource["kind"] != "Job"}
PODS = [
    pytest.param(resource, pod, id=f"{path.relative_to(KUBERNETES)}-{number}")
    for path, resource in RESOURCES
    for number, pod in enumerate(pod_templates(resource))
]
SAMPLES = {name + part for name in FAMILIES for part in ("", "_sum", "_count", "_bucket")}


def check_schema(resource: dict[str, Any]) -> None:
    if CUSTOM.get(resource["kind"]) == resource["apiVersion"]:
        return
    kubernetes_validate.validate(resource, VERSION, strict=True)


@pytest.mark.parametrize(
    ("path", "resource"), RESOURCES, ids=[str(path.relative_to(KUBERNETES)) for path, _ in RESOURCES]
)
def test_every_resource_is_valid(path: Path, resource: dict[str, Any]) -> None:
    check_schema(resource)


def test_a_misspelt_field_is_invalid() -> None:
    deployment = load(KUBERNETES / "base/deployment.yaml")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        check_schema(deployment)


@pytest.mark.parametrize("folder", BUILT, ids=str)
def test_every_kustomization_builds_valid_resources(folder: Path) -> None:
    resources = build(KUBERNETES / folder)
    assert resources
    for resource in resources:
        check_schema(resource)
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in resources]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("component", BUNDLES, ids=lambda folder: folder.name)
def test_every_source_of_bundles_builds(component: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    # Kustomize takes relative paths only.
    folder.symlink_to(KUBERNETES)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../kubernetes/base"],
        "components": [f"../kubernetes/{component}"],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    resources = build(overlay)
    for resource in resources:
        check_schema(resource)
    pod = one(resources, "Deployment")["spec"]["template"]["spec"]
    assert "bundles" in {volume["name"] for volume in pod["volumes"]}
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "bundles"]
    assert mount == {"name": "bundles", "mountPath": "/bundles", "readOnly": True}
    for container in pod.get("initContainers", ()):
        assert container["image"] == pod["containers"][0]["image"]
        assert container["securityContext"] == pod["containers"][0]["securityContext"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=str)
def test_every_kustomization_names_files_and_resources_that_exist(folder: Path) -> None:
    content = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
    paths = [*content.get("resources", ()), *content.get("components", ())]
    paths += [patch["path"] for patch in content.get("patches", ()) if "path" in patch]
    assert [path for path in paths if not (KUBERNETES / folder / path).exists()] == []
    names = {(resource["kind"], resource["metadata"]["name"]) for _, resource in RESOURCES}
    targets = [patch["target"] for patch in content.get("patches", ()) if "target" in patch]
    assert {(target["kind"], target["name"]) for target in targets} <= names


def test_every_file_belongs_to_a_kustomization_or_is_applied_by_itself() -> None:
    used = set[Path]()
    for folder in KUSTOMIZATIONS:
        content = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
        used |= {KUBERNETES / folder / path for path in content.get("resources", ())}
        used |= {KUBERNETES / folder / patch["path"] for patch in content.get("patches", ()) if "path" in patch}
    for path in set(FILES) - used:
        assert f"kubectl apply -f {path.relative_to(ROOT)}" in path.read_text()


@pytest.mark.parametrize(("resource", "pod"), PODS)
def test_no_pod_is_privileged_or_mounts_what_is_not_there(resource: dict[str, Any], pod: dict[str, Any]) -> None:
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    for container in containers:
        security = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] >= 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security.get("readOnlyRootFilesystem") is True or resource["kind"] == "RayJob"
        assert "memory" in container["resources"]["limits"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        # /bundles is mounted by a component.
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= {"/tmp", "/output"}


def test_the_grace_period_covers_the_sleep_and_the_drain() -> None:
    pod = BY_KIND["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert pod["terminationGracePeriodSeconds"] >= sleep_s + float(variables["EKIBEN_GRACE_S"]) + 5
    readiness = container["readinessProbe"]
    assert sleep_s > readiness["periodSeconds"] * readiness["failureThreshold"]


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda folder: folder.name)
def test_selectors_ports_and_secrets_of_an_overlay_meet(folder: Path) -> None:
    resources = build(KUBERNETES / folder)
    deployment, service = one(resources, "Deployment"), one(resources, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        one(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    monitor = one(resources, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }
    # The autoscaler decides how many pods there are.
    assert "replicas" not in deployment["spec"]
    [scaler] = [resource for resource in resources if resource["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    has_gpu = folder.name == "gpu"
    assert rolling == ({"maxUnavailable": 1, "maxSurge": 0} if has_gpu else {"maxUnavailable": 0, "maxSurge": 1})


def test_autoscalers_ask_for_metrics_that_exist() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/adapter-rules.yaml").read_text())["externalRules"]
    expected = {
        metric["external"]["metric"]["name"] for metric in BY_KIND["HorizontalPodAutoscaler"]["spec"]["metrics"]
    }
    assert {rule["name"]["as"] for rule in rules} == expected
    queries = [rule[field] for rule in rules for field in ("seriesQuery", "metricsQuery")]
    queries += [trigger["metadata"]["query"] for trigger in BY_KIND["ScaledObject"]["spec"]["triggers"]]
    for query in queries:
        names = re.findall(r"ekiben_\w+", query)
        assert names
        assert set(names) <= SAMPLES


def test_both_autoscalers_scale_alike() -> None:
    hpa, keda = BY_KIND["HorizontalPodAutoscaler"]["spec"], BY_KIND["ScaledObject"]["spec"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    targets = [
        next(
            metric["external"]["target"][key]
            for key in ("value", "averageValue")
            if key in metric["external"]["target"]
        )
        for metric in hpa["metrics"]
    ]
    numbers = [float(target[:-1]) / 1000 if target.endswith("m") else float(target) for target in targets]
    assert [float(trigger["metadata"]["threshold"]) for trigger in keda["triggers"]] == numbers
    assert [trigger["metricType"] for trigger in keda["triggers"]] == [
        m["external"]["target"]["type"] for m in hpa["metrics"]
    ]


def test_kserve_finds_the_runtime_of_the_inference_service() -> None:
    runtime, predictor = BY_KIND["ServingRuntime"], BY_KIND["InferenceService"]["spec"]["predictor"]["model"]
    assert predictor["runtime"] == runtime["metadata"]["name"]
    formats = [{key: entry[key] for key in ("name", "version")} for entry in runtime["spec"]["supportedModelFormats"]]
    assert predictor["modelFormat"] in formats
    assert predictor["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert [container["name"] for container in runtime["spec"]["containers"]] == ["kserve-container"]


def test_every_image_is_built_by_a_command_or_a_dockerfile_of_the_docs() -> None:
    containers = [
        container for _, resource in RESOURCES for pod in pod_templates(resource) for container in pod["containers"]
    ]
    images = {container["image"] for container in containers if "image" in container}
    built = {f"ekiben{suffix}{gpu}:0.1.0" for suffix in ("", "-bundled", "-scoring") for gpu in ("", "-gpu")}
    assert images - built == {"ekiben-scoring-ray:0.1.0"}
    text = (ROOT / "docs/kubernetes.md").read_text()
    [base] = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
    assert base in built
    version = BY_KIND["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert f'"ray[default]=={version}"' in text
    assert f"\nray=={version} " in (ROOT / "constraints/ray.txt").read_text()


def test_everything_reads_the_bundles_at_the_root_of_one_claim() -> None:
    """KServe mounts the folder of a claim that follows its name; everything else mounts the claim at /bundles."""
    pods = [pod for _, resource in RESOURCES for pod in pod_templates(resource)]
    pods += pod_templates(build(KUBERNETES / "overlays/cpu"))
    containers = [container for pod in pods for container in pod["containers"]]
    mounts = [mount for container in containers for mount in container["volumeMounts"] if mount["name"] == "bundles"]
    assert {mount.get("subPath") for mount in mounts} == {None}
    volumes = [volume for pod in pods for volume in pod["volumes"] if volume["name"] == "bundles"]
    [claim] = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes}
    assert BY_KIND["InferenceService"]["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}"
