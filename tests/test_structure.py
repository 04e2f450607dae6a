"""The layout that the documentation promises."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import FIRST, TESTS, SharedFixtures, rank

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("training", "export", "service", "ekiben", "deploy")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)
MAX_MODULES = 11
REGISTRIES = {Path("training/models"), Path("training"), Path("training/data")}
TESTED_TOGETHER = {Path("training/models"): Path("tests/training/test_models.py")}  # one parametrised test, by registry


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_test(module: Path) -> None:
    test = Path("tests") / module.parent / f"test_{module.stem.strip('_')}.py"
    assert (ROOT / TESTED_TOGETHER.get(module.parent, test)).is_file(), f"write {test}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_says_what_it_is_for(module: Path) -> None:
    tree = ast.parse((ROOT / module).read_text())
    assert ast.get_docstring(tree), f"{module} has no docstring"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_outgrows_its_noun(module: Path) -> None:
    assert len((ROOT / module).read_text().splitlines()) <= 400


@pytest.mark.parametrize("folder", sorted({module.parent for module in MODULES}), ids=str)
def test_no_folder_is_crowded(folder: Path) -> None:
    """Beside its subfolders a folder holds about ten modules at most; registries of models and sources may grow."""
    modules = [module for module in MODULES if module.parent == folder]
    assert len(modules) <= MAX_MODULES or folder in REGISTRIES


@pytest.mark.parametrize("name", FIRST)
def test_what_begins_first_is_there(name: str) -> None:
    assert (TESTS / name).exists()


def test_tests_are_in_their_order(request: pytest.FixtureRequest) -> None:
    ranks = [rank(item.path) for item in request.session.items]
    assert ranks == sorted(ranks)


def test_one_process_runs_the_files_that_share_fixtures() -> None:
    scope = SharedFixtures.__new__(SharedFixtures)._split_scope
    gate, main = scope("tests/export/gates/test_cases.py::a[b]"), scope("tests/export/test_main.py::a")
    assert gate == main == "export"
    assert scope("tests/export/sources/huggingface/test_loading.py::a") == "export/sources/huggingface"
    assert scope("tests/service/test_app.py::a[b]") == "tests/service/test_app.py"


def test_readme_tree_names_what_is_there() -> None:
    tree = re.search(r"## Repository layout\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree
    folder, absent = "", []
    for line in tree[1].splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        path = name if not line.startswith(" ") else folder + name
        if not (ROOT / path).exists() and not path.startswith(("runs", "bundles")):
            absent.append(path)
    assert not absent
