"""What a contributor is told and given works: commands, forms, hooks and the development container."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
FIELDS = {"textarea", "input", "dropdown", "checkboxes", "markdown"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_named_targets_and_files_exist() -> None:
    named = {word for line in re.findall(r"make ((?:[a-z-]+ ?)+)", PAGE) for word in line.split()}
    assert {"install", "serve", "format", "check", "test", "lock", "docs"} <= named & TARGETS
    paths = re.findall(r"`((?:tests|service|docs|\.devcontainer)/[\w/.]*)`", PAGE)
    assert len(paths) >= 3
    assert all((ROOT / path).exists() for path in paths)


def test_continuous_integration_runs_what_the_page_says() -> None:
    assert "exec make check test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_its_reader_needs(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    assert {field["type"] for field in form["body"]} <= FIELDS
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    assert all(field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_hooks_run_tools_of_the_environment_and_download_nothing() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    recipe = (ROOT / "Makefile").read_text()
    for hook in config["repos"][0]["hooks"]:
        program, *words = shlex.split(hook["entry"])
        assert hook["language"] == "system"
        assert f"$(BIN)/{Path(program).name} {words[0]}" in recipe, "make check runs the same"


def test_the_linter_accepts_the_words_of_the_hooks() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for hook in config["repos"][0]["hooks"]:
        if hook.get("pass_filenames", True):
            command = [*shlex.split(hook["entry"]), "tests/test_contributing.py"]
            if not (ROOT / command[0]).exists():
                pytest.skip("the environment is not at .venv")
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)


def test_the_development_container_installs_with_make() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].split()[0] == "make"
    assert container["postCreateCommand"].split()[1] in TARGETS
    assert "python:3.11" in container["image"]
    assert container["forwardPorts"] == [3000]
