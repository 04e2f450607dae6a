"""`make serve` trains, exports and serves what is missing; with DATA, on the real data sets in folders of their own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.thresholds import DATA_FOLDERS
from tests.documents import ROOT
from training.models import RECIPES


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the Makefile reads, without runs and bundles, with an environment that counts as installed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints", "training"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    (folder / "sets").mkdir()
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".installed").touch()
    return folder


@pytest.fixture(scope="module")
def plans(checkout: Path) -> dict[str, str]:
    """The commands without and with DATA."""
    return {"embedded": planned(checkout), "real": planned(checkout, "DATA=sets").replace("\\\n", " ")}


def planned(folder: Path, *words: str) -> str:
    """The commands that make would run."""
    env = {key: value for key, value in os.environ.items() if key not in {"DATA", "MAKEFLAGS"}}
    command = ["make", "--no-print-directory", "-n", "serve", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", RECIPES)
def test_data_trains_a_recipe_on_its_real_set(name: str, plans: dict[str, str]) -> None:
    text = plans["real"]
    training = [line for line in text.splitlines() if f"-m training {name} " in line]
    assert len(training) == 1
    assert f"--out runs-real/{name} " in training[0]
    assert f'--data "sets/$(.venv/bin/python -m benchmarks.thresholds --data-of {name})"' in training[0]
    assert f"-m export runs-real/{name} --bundles bundles-real\n" in text
    assert DATA_FOLDERS[name.split("-", maxsplit=1)[0]] in (ROOT / "docs" / "models.md").read_text()


def test_each_kind_of_data_is_served_from_its_folder(plans: dict[str, str]) -> None:
    served_by = {kind: plan.splitlines()[-1] for kind, plan in plans.items()}
    assert served_by["embedded"].startswith("EKIBEN_BUNDLES=bundles .venv/bin/bentoml serve service.app:Ekiben")
    assert served_by["real"].startswith("EKIBEN_BUNDLES=bundles-real .venv/bin/bentoml serve service.app:Ekiben")


def test_without_data_nothing_is_trained_on_other_data(plans: dict[str, str]) -> None:
    text = plans["embedded"]
    assert "-m training mnist-cnn --threads 1" in text
    assert "--data" not in text.replace("--data-of", "")
    assert "runs-real" not in text


def test_a_folder_that_is_not_there_is_named(checkout: Path) -> None:
    command = ["make", "--no-print-directory", "serve", "DATA=nowhere"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DATA=nowhere: expected a folder with the data sets" in done.stdout
