"""Every command that the documents show is run here, and gives what they say.

Models are trained on the machine that tests them, so numbers may differ from those printed in the README by what
another processor does to training; names, labels, shapes and messages may not.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.settings import settings_table
from tests.documents import ADDRESS, BLOCK, README, ROOT, TABLE, Example, examples, run, with_tables
from tests.e2e.serving import SERVE, environment, serving

EXAMPLES = examples(README.read_text())
NUMBERS_MAY_DIFFER_BY = 0.15
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def check(printed: Any, said: Any, where: str = "") -> None:
    match said:
        case dict():
            assert list(printed) == list(said), where
            for key, value in said.items():
                check(printed[key], value, f"{where}/{key}")
        case list():
            assert len(printed) == len(said), where
            for i, value in enumerate(said):
                check(printed[i], value, f"{where}/{i}")
        case float():
            assert printed == pytest.approx(said, abs=NUMBERS_MAY_DIFFER_BY), where
        case str() if where.endswith("/version"):
            assert re.fullmatch("[0-9a-f]{12}", printed), where
        case str() if where.endswith("/text"):  # what a language model makes of a prompt
            assert printed
            assert isinstance(printed, str)
        case _:
            assert printed == said, where


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_give_what_the_readme_says(example: Example, server: str, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    printed = run(example, server, tmp_path)
    if example.answer is not None:
        check(json.loads(printed), example.answer)
    for picture in tmp_path.glob("*.png"):
        Image.open(io.BytesIO(picture.read_bytes())).verify()


def test_the_readme_has_an_example_of_every_endpoint() -> None:
    shown = " ".join(example.command for example in EXAMPLES)
    assert all(f"{ADDRESS}{path}" in shown for path in ("/classify", "/sequence-predict", "/generate"))


def test_commands_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named <= targets


def test_commands_of_bentoml_report_to_nobody() -> None:
    lines = (line for page in PAGES for _, _, code in BLOCK.findall(page.read_text()) for line in code.splitlines())
    commands = [line for line in lines if "bin/bentoml " in line]
    assert commands
    assert all("BENTOML_DO_NOT_TRACK=True " in command for command in commands)


def test_generated_tables_are_fresh() -> None:
    for page in PAGES:
        text = page.read_text()
        said = {match[2]: match[0] for match in TABLE.finditer(text) if match[2] != "models"}  # numbers of one training
        fresh = {match[2]: match[0] for match in TABLE.finditer(with_tables(text)) if match[2] != "models"}
        assert said == fresh, f"{page.name}: make docs"
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_the_models_table_names_every_model(bundles: Path) -> None:
    models = {path.parent.name for path in bundles.glob("*/current")}
    said = next(match[0] for match in TABLE.finditer(README.read_text()) if match[2] == "models")
    assert set(re.findall(r"^\| ([a-z0-9-]+) \|", said, re.MULTILINE)) - {"model", "---"} == models


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_adding_a_model_works_as_its_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "adding-a-model.md").read_text()
    for package in ("training", "export", "service"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    titled = {title: code for language, title, code in BLOCK.findall(page) if title}
    (tmp_path / "training/models/waves.py").write_text(titled["training/models/waves.py"])
    registry = tmp_path / "training/models/__init__.py"
    before, after = registry.read_text().split("RECIPES: dict[str, Recipe] = {\n")
    line = titled["training/models/__init__.py"]
    registry.write_text(f"from training.models import waves\n{before}RECIPES: dict[str, Recipe] = {{\n{line}{after}")
    commands, question = (code for language, title, code in BLOCK.findall(page) if language == "sh")
    train, export, _ = commands.splitlines()
    for command in (f"{train} --threads 1", export):
        words = [sys.executable, *command.split()[1:]]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    env = environment(EKIBEN_BUNDLES="bundles", BENTOML_HOME=str(tmp_path / "home"))
    with serving(SERVE, env=env, cwd=tmp_path, log=tmp_path / "log") as address:
        answer = json.loads(run(Example(name="waves", command=question, answer=None), address, tmp_path))
    assert answer["predictions"][0]["label"] == "square"
