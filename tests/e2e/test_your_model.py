"""Every way in of docs/your-model.md works by the commands of the page, from an empty folder outside the repository."""

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from export.spec import parse_spec
from service.bundle import current_version, open_bundle
from service.manifest import Manifest
from tests.documents import BLOCK, ROOT
from tests.e2e.serving import SERVE, environment, serving

PAGE = (ROOT / "docs" / "your-model.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PAIRS = {
    "ONNX and scikit-learn": ("churn", "tensors -> tensors"),
    "Transformers": ("reviews", "text -> labels"),
    "Keras": ("iris", "tensors -> labels"),
}
MAX_LINES = 15


def follow_section(title: str, folder: Path) -> Manifest:
    """Write the files of a section, run its commands but the server, and return the manifest of its only bundle."""
    blocks = BLOCK.findall(SECTIONS[title])
    for _, name, content in blocks:
        if name:
            (folder / name).write_text(content)
    scripts = str(Path(sys.executable).parent)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{scripts}:{os.environ['PATH']}"}
    if title == "PyTorch":
        script = str(ROOT / "docs" / "examples" / "train_plain.py")
        env_of_training = {**env, "PYTHONPATH": str(folder)}
        subprocess.run([sys.executable, script], cwd=folder, check=True, capture_output=True, env=env_of_training)
    commands = [line for language, _, code in blocks if language == "sh" for line in code.splitlines()]
    for command in (command for command in commands if "-m service" not in command):
        completed = subprocess.run(
            ["bash", "-euc", command], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stderr
    [model] = (folder / "bundles").glob("*/current")
    return open_bundle(model.parent / current_version(model.parent)).manifest


@pytest.mark.timeout(900)
def test_a_state_dict_is_served_in_fifteen_lines(tmp_path: Path) -> None:
    manifest = follow_section("PyTorch", tmp_path)
    assert manifest.pair == "image -> labels"
    assert manifest.provenance.metrics["test_accuracy"] > 0.9
    assert all(tolerance.measured <= 1e-5 for tolerance in manifest.tolerance.values())
    files = [content for _, name, content in BLOCK.findall(SECTIONS["PyTorch"]) if name]
    assert sum(len([line for line in content.splitlines() if line.strip()]) for content in files) <= MAX_LINES
    env = environment(EKIBEN_BUNDLES=str(tmp_path / "bundles"), BENTOML_HOME=str(tmp_path / "home"))
    with serving(SERVE, env=env, cwd=ROOT, log=tmp_path / "log") as address:
        request = urllib.request.Request(
            f"{address}/classify?model={manifest.name}",
            data=(ROOT / "docs" / "examples" / "seven.png").read_bytes(),
            headers={"content-type": "image/png"},
        )
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    assert answer["predictions"][0]["label"] == "7"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("title", PAIRS)
def test_other_ways_in(title: str, tmp_path: Path) -> None:
    manifest = follow_section(title, tmp_path)
    assert (manifest.name, manifest.pair) == PAIRS[title]


def test_every_spec_of_the_page_is_valid(tmp_path: Path) -> None:
    specs = [content for language, name, content in BLOCK.findall(PAGE) if language == "toml"]
    assert len(specs) > 4
    for content in specs:
        parse_spec(tomllib.loads(content), tmp_path / "spec.toml")
