"""The options of a Ray cluster: every form of a runtime environment, and what is refused before a row is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.scoring.engines.cluster import ClusterOptions, cluster_options
from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import texts, write_text

CONTENT = {"env_vars": {"A": "1"}, "working_dir": "."}


def test_a_runtime_environment_is_a_mapping_json_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text(json.dumps(CONTENT))
    (tmp_path / "env.yaml").write_text("env_vars: {A: '1'}\nworking_dir: .\n")
    forms: list[Any] = [CONTENT, json.dumps(CONTENT), tmp_path / "env.json", str(tmp_path / "env.yaml")]
    for form in forms:
        assert cluster_options("ray", "h:1", form) == ClusterOptions(address="h:1", runtime_env=CONTENT)
    assert cluster_options("ray", None, None) == cluster_options("local", None, None) == ClusterOptions()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("nothing.yaml", "expected JSON or a file of JSON or YAML; .*nothing.yaml"),
        ('{"a": ', "expected JSON or a file of JSON or YAML; Expecting value"),
        ("broken.yaml", "expected JSON or a file of JSON or YAML; .*broken.yaml: while parsing"),
        ("list.yaml", "list.yaml: expected an object"),
    ],
)
def test_another_runtime_environment_is_refused(form: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ScoringError, match=message):
        cluster_options("ray", None, form if form.startswith("{") else str(tmp_path / form))


@pytest.mark.parametrize("option", [{"ray_address": "127.0.0.1:1"}, {"ray_runtime_env": {}}])
def test_another_engine_has_no_cluster(option: dict[str, Any], score: Score, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(3))
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(ScoringError, match=f"--{name}: only --engine ray has a cluster"):
        score("text-classifier", source, tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()
