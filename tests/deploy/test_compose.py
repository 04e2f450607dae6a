"""The compose file refers to what exists, and is open to this machine only."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import load_settings
from tests.e2e.serving import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Of the compose specification, what this file uses: a misspelt key is no key.
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "image", "init", "ports"),
    *("profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes"),
}


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """The source of each mount by its target."""
    return {
        target: source for source, target in (with_defaults(volume).split(":")[:2] for volume in service["volumes"])
    }


def test_every_key_is_one_of_the_specification() -> None:
    assert set(COMPOSE) == {"name", "services", "volumes"}
    for service in SERVICES.values():
        assert set(service) <= KEYS


def test_every_mounted_file_and_volume_exists() -> None:
    for service in SERVICES.values():
        for source in mounts(service).values():
            assert source in COMPOSE["volumes"] or source == "../bundles" or (DEPLOY / source).exists(), source


@pytest.mark.parametrize("name", SERVICES)
def test_no_port_is_open_to_other_machines(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert with_defaults(port).startswith("127.0.0.1:")
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_service_takes_its_variables_and_has_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES["ekiben"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    settings.check_address("0.0.0.0")
    assert float(service["stop_grace_period"].removesuffix("s")) > settings.grace_s
    assert service["read_only"]
    assert mounts(service)["/bundles"] == "../bundles"


def test_prometheus_scrapes_the_service_and_loads_the_alerts() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    [scrape] = configuration["scrape_configs"]
    [target] = scrape["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert port in SERVICES[host]["command"]
    folder = Path("/etc/prometheus")
    assert {str(folder / name) for name in configuration["rule_files"]} <= set(mounts(SERVICES["prometheus"]))


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES
    [provider] = yaml.safe_load((provisioning / "dashboards" / "ekiben.yaml").read_text())["providers"]
    targets = mounts(SERVICES["grafana"])
    assert str(Path(provider["options"]["path"]) / "dashboard.json") in targets
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert targets[home] == "./grafana/dashboard.json"
