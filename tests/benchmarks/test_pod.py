"""The Deployment that podman plays is that of the manifests, but for what podman lacks."""

from pathlib import Path

from benchmarks.deploy.pod import OVERLAY, deployment
from tests.deploy.manifests import KUBERNETES, build, one


def test_the_pod_keeps_its_user_its_limits_and_its_variables() -> None:
    expected = one(build(OVERLAY.relative_to(KUBERNETES.parent.parent)), "Deployment")["spec"]["template"]["spec"]
    found, probes = deployment("image:1", Path("bundles"), 1234)
    pod = found["spec"]["template"]["spec"]
    (container,), (original,) = pod["containers"], expected["containers"]
    assert pod["securityContext"] == expected["securityContext"]
    for field in ("env", "resources", "securityContext", "volumeMounts"):
        assert container[field] == original[field]
    assert container["args"] == ["1234" if value == "3000" else value for value in original["args"]]
    assert {probe["path"] for probe in probes.values()} == {"/livez", "/readyz"}
