"""The code of the pages for newcomers runs: the start, and what comes after another server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser

from tests.documents import ADDRESS, BLOCK, ROOT
from tests.e2e.serving import environment, serving

NAMES = ("start", "moving-from-torchserve", "moving-from-fastapi", "moving-from-triton", "moving-from-bentoml")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in NAMES}
# The code before belongs to another server: it is read, not run.
AFTER = {name: page.partition("## After")[2] or page for name, page in PAGES.items()}
BLOCKS = [
    pytest.param(code, id=f"{name}-{i}")
    for name, page in AFTER.items()
    for i, (language, title, code) in enumerate(BLOCK.findall(page))
    if language == "python" and not title
]
SCORES = """
<ir_version: 10, opset_import: ["" : 20]>
scores (float[n, 4] x) => (float[n, 2] y)
<float[4, 2] w = {0.5, -1.0, 0.25, 2.0, 1.5, 0.1, -0.7, 0.3}>
{ z = MatMul(x, w)  y = Tanh(z) }
"""


def run_python(code: str, folder: Path) -> None:
    env = environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_page_has_code_before_and_after() -> None:
    for name in NAMES[1:]:
        page = PAGES[name]
        assert re.findall(r"^## (.+)", page, re.MULTILINE)[-2:] == ["Before", "After"]
        assert "```python" in page.partition("## Before")[2].partition("## After")[0]
        assert "```python" in AFTER[name]


@pytest.mark.parametrize("code", BLOCKS)
def test_code_runs(code: str, server: str, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    assert ADDRESS in code
    run_python(code.replace(ADDRESS, server.removeprefix("http://")), tmp_path)


def test_a_changed_byte_is_found_as_the_start_says(bundles: Path, tmp_path: Path) -> None:
    inspected, broken = [code for _, _, code in BLOCK.findall(PAGES["start"]) if "inspect" in code]
    model = tmp_path / "bundles" / "mnist-cnn"
    shutil.copytree(bundles / "mnist-cnn", model)
    env = environment(PYTHONPATH=str(ROOT))

    def run(code: str) -> subprocess.CompletedProcess[str]:
        code = code.replace(".venv/bin/python", sys.executable).replace("/tmp/broken", str(tmp_path / "broken"))
        return subprocess.run(
            ["bash", "-euc", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    assert run(inspected).stdout.startswith(f"mnist-cnn {(model / 'current').read_text().strip()}\n")
    done = run(broken)
    assert (done.returncode, done.stdout) == (1, "")
    assert "model.onnx has " in done.stderr


def test_a_graph_of_a_hand_written_service_is_exported_and_answers(tmp_path: Path) -> None:
    onnx.save(parser.parse_model(SCORES), tmp_path / "scores.onnx")
    blocks = BLOCK.findall(AFTER["moving-from-fastapi"])
    for _, title, code in blocks:
        if title:
            (tmp_path / title).write_text(code)
    [commands] = [code for language, _, code in blocks if language == "sh"]
    scripts = str(Path(sys.executable).parent)
    env = environment(PYTHONPATH=str(ROOT), PATH=f"{scripts}:{os.environ['PATH']}")
    *prepared, serve = commands.splitlines()
    for command in prepared:
        done = subprocess.run(
            ["bash", "-euc", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert serve == "python -m ekiben serve --bundles bundles --port 3000"
    ekiben = (sys.executable, "-m", "ekiben", "serve", "--bundles", str(tmp_path / "bundles"))
    with serving(ekiben, env=environment(), cwd=ROOT, log=tmp_path / "log") as address:
        run_python((tmp_path / "ask.py").read_text().replace(f"http://{ADDRESS}", address), tmp_path)
