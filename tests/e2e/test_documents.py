"""Every command in the documents runs here and prints what the documents say.

Models are trained on the machine that tests them. Another processor trains slightly different weights, so numbers may
differ from the documents; names, labels, shapes and messages may not.
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
from tests.documents import (
    ADDRESS,
    BLOCK,
    PAGES,
    README,
    ROOT,
    TABLE,
    TRAINED_TABLES,
    Example,
    examples,
    run,
    with_tables,
)
from tests.e2e.serving import SERVE, environment, serving

EXAMPLES = [example for page in PAGES for example in examples(page.read_text())]
NUMBER_TOLERANCE = 0.15
MAX_README_LINES = 160


def check_answer(printed: Any, documented: Any, where: str = "") -> None:
    match documented:
        case dict():
            assert list(printed) == list(documented), where
            for key, value in documented.items():
                check_answer(printed[key], value, f"{where}/{key}")
        case list():
            assert len(printed) == len(documented), where
            for i, value in enumerate(documented):
                check_answer(printed[i], value, f"{where}/{i}")
        case float():
            assert printed == pytest.approx(documented, abs=NUMBER_TOLERANCE), where
        case str() if where.endswith("/version"):
            assert re.fullmatch("[0-9a-f]{12}", printed), where
        # Another processor trains other last bits, so labels of small probabilities may change places.
        case str() if re.search(r"/top/[1-9]\d*/label$", where):
            assert isinstance(printed, str)
        case str() if where.endswith("/text"):  # a language model's continuation of a prompt
            assert printed
            assert isinstance(printed, str)
        case _:
            assert printed == documented, where


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_print_what_the_documents_say(example: Example, server: str, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    printed = run(example, server, tmp_path)
    if example.answer is not None:
        check_answer(json.loads(printed), example.answer)
    for image in tmp_path.glob("*.png"):
        Image.open(io.BytesIO(image.read_bytes())).verify()


def test_readme_has_an_example_of_every_endpoint() -> None:
    commands = " ".join(example.command for example in examples(README.read_text()))
    assert all(f"{ADDRESS}{path}" in commands for path in ("/classify", "/sequence-predict", "/generate"))


def test_readme_stays_short() -> None:
    assert len(README.read_text().splitlines()) < MAX_README_LINES


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named <= targets


def test_bentoml_commands_in_the_documents_do_not_report_usage() -> None:
    lines = (line for page in PAGES for _, _, code in BLOCK.findall(page.read_text()) for line in code.splitlines())
    commands = [line for line in lines if "bin/bentoml " in line]
    assert commands
    assert all("BENTOML_DO_NOT_TRACK=True " in command for command in commands)


def test_generated_tables_are_up_to_date() -> None:
    for page in PAGES:
        text = page.read_text()
        documented = {match[2]: match[0] for match in TABLE.finditer(text) if match[2] not in TRAINED_TABLES}
        generated = {
            match[2]: match[0] for match in TABLE.finditer(with_tables(text)) if match[2] not in TRAINED_TABLES
        }
        assert documented == generated, f"{page.name}: make docs"
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_models_table_names_every_model_and_the_data_of_its_metric(bundles: Path) -> None:
    models = {path.parent.name for path in bundles.glob("*/current")}
    table = next(match[0] for match in TABLE.finditer(README.read_text()) if match[2] == "models")
    header, _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|"))
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert set(cells) == models
    assert all(" on " in row["on the test split"] for row in cells.values())


def test_links_in_the_documents_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_adding_a_model_works_as_documented(tmp_path: Path) -> None:
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
