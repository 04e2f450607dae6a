"""Alerts: promtool accepts them, and the operating guide says what to do about each."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.serving import ROOT, environment, serving
from tests.service.hosts import GRANIAN, IMAGES, ask

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"][0]["rules"]
GUIDE = (ROOT / "docs" / "operating.md").read_text()


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    """Run promtool, and return what it says; skips without it (apt-get install prometheus)."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_the_operating_guide_has_a_paragraph_for_every_alert(alert: str) -> None:
    found = re.search(rf"^\| `{alert}` \| (.+) \| (.+) \|$", GUIDE, re.MULTILINE)
    assert found, f"docs/operating.md says nothing about {alert}"
    assert min(len(cell.split()) for cell in found.groups()) >= 4


def test_the_operating_guide_describes_no_other_alerts() -> None:
    assert set(re.findall(r"^\| `(Ekiben\w+)` \|", GUIDE, re.MULTILINE)) == {rule["alert"] for rule in ALERTS}


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", str(PROMETHEUS / "alerts.yaml"))


def test_promtool_accepts_the_configuration_of_prometheus() -> None:
    assert "SUCCESS" in promtool("check", "config", str(PROMETHEUS / "prometheus.yaml"))


def test_promtool_accepts_the_queries_of_the_autoscalers(tmp_path: Path) -> None:
    rules = yaml.safe_load((PROMETHEUS / "adapter-rules.yaml").read_text())["externalRules"]
    queries = [rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="default"') for rule in rules]
    scaled = yaml.safe_load((ROOT / "deploy/kubernetes/overlays/keda/scaled-object.yaml").read_text())
    queries += [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", str(path))


def test_promtool_accepts_the_metrics(served_bundles: Path, tmp_path: Path) -> None:
    env = environment(EKIBEN_BUNDLES=str(served_bundles))
    with serving(GRANIAN, env=env, cwd=ROOT, log=tmp_path / "log") as address:
        port = int(address.rpartition(":")[2])
        assert ask(port, "POST", "/classify", IMAGES, content_type="application/json")[0] == 200
        _, _, exposition = ask(port, "GET", "/metrics")
    promtool("check", "metrics", stdin=exposition)


RULE_TESTS = """
rule_files: [alerts.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'ekiben_ready_workers{job="ekiben", instance="a"}', values: '2x5 0x60'}
      - {series: 'ekiben_workers{job="ekiben", instance="a"}', values: '2x65'}
    alert_rule_test:
      - {eval_time: 5m, alertname: EkibenNotReady}
      - eval_time: 10m
        alertname: EkibenNotReady
        exp_alerts: [{exp_labels: {job: ekiben, severity: critical}}]
  - interval: 1m
    input_series:
      - {series: 'ekiben_http_requests_total{job="ekiben", status="200"}', values: '0+98x30'}
      - {series: 'ekiben_http_requests_total{job="ekiben", status="500"}', values: '0+2x30'}
    alert_rule_test:
      - eval_time: 20m
        alertname: EkibenErrors
        exp_alerts: [{exp_labels: {job: ekiben, severity: critical}}]
      - {eval_time: 20m, alertname: EkibenShedding}
  - interval: 1m
    input_series:
      - {series: 'ekiben_http_requests_total{job="ekiben", status="200"}', values: '0+100x30'}
      - {series: 'ekiben_http_requests_total{job="ekiben", status="404"}', values: '0+50x30'}
    alert_rule_test:
      - {eval_time: 20m, alertname: EkibenErrors}
  # A service of eight workers is started, another one started again; a scrape comes while their workers start.
  - interval: 15s
    input_series:
      - {series: 'ekiben_worker_starts_total{job="ekiben", instance="a"}', values: '2 8x80'}
      - {series: 'ekiben_workers{job="ekiben", instance="a"}', values: '2 8x80'}
      - {series: 'ekiben_worker_starts_total{job="ekiben", instance="c"}', values: '8x20 3 8x60'}
      - {series: 'ekiben_workers{job="ekiben", instance="c"}', values: '8x20 3 8x60'}
      - {series: 'ekiben_worker_starts_total{job="ekiben", instance="b"}', values: '1x20 2x8 3x8 4x8 5x60'}
      - {series: 'ekiben_workers{job="ekiben", instance="b"}', values: '1x80'}
      - {series: 'ekiben_ready_workers{job="ekiben", instance="a"}', values: '8x20 stale'}
    alert_rule_test:
      - {eval_time: 3m, alertname: EkibenRestartLoop}
      - {eval_time: 8m, alertname: EkibenRestartLoop}
      - {eval_time: 12m, alertname: EkibenWorkersMissing}
      - eval_time: 13m
        alertname: EkibenRestartLoop
        exp_alerts: [{exp_labels: {job: ekiben, instance: b, severity: critical}}]
"""


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    shutil.copy(PROMETHEUS / "alerts.yaml", tmp_path)
    rules = yaml.safe_load((tmp_path / "alerts.yaml").read_text())
    tests = yaml.safe_load(RULE_TESTS)
    texts = {rule["alert"]: rule["annotations"] for rule in rules["groups"][0]["rules"]}
    for case in tests["tests"]:
        for check in case["alert_rule_test"]:
            for fired in check.get("exp_alerts", ()):
                fired["exp_annotations"] = texts[check["alertname"]]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "tests.yaml"))
