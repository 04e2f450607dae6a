"""What no image runs is removed, the rest is compiled, readable and equal in every build."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(folder: Path) -> tuple[Path, Path]:
    packages, app = folder / "site-packages", folder / "app"
    files = {
        packages / "numpy/__init__.py": "from numpy.core import ONE",
        packages / "numpy/core.py": "ONE = 1",
        packages / "numpy/core.pyx": "cdef int one = 1",
        packages / "numpy/tests/tests/test_core.py": "import numpy",
        packages / "onnxruntime/transformers/optimizer.py": "import torch",
        packages / "granian/template.py": "class {{ name }}:",
        packages / "bin/tool.sh": "#!/bin/sh",
        app / "service/__init__.py": "",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o660)
    (packages / "bin/tool.sh").chmod(0o770)
    return packages, app


def finish(packages: Path, app: Path) -> dict[str, bytes]:
    script = ROOT / "deploy/finish_environment.py"
    subprocess.run([sys.executable, script, packages, app], check=True, capture_output=True)
    return {str(path.relative_to(app.parent)): path.read_bytes() for path in app.parent.rglob("*") if path.is_file()}


def test_unused_files_go_and_modules_are_compiled_for_files_of_any_age(tmp_path: Path) -> None:
    packages, app = environment(tmp_path / "a")
    found = finish(packages, app)
    tag = sys.implementation.cache_tag
    assert set(found) == {
        "site-packages/numpy/__init__.py",
        f"site-packages/numpy/__pycache__/__init__.{tag}.pyc",
        "site-packages/numpy/core.py",
        f"site-packages/numpy/__pycache__/core.{tag}.pyc",
        "site-packages/granian/template.py",
        "site-packages/bin/tool.sh",
        "app/service/__init__.py",
        f"app/service/__pycache__/__init__.{tag}.pyc",
    }
    compiled = found[f"site-packages/numpy/__pycache__/core.{tag}.pyc"]
    assert compiled[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(compiled[4:8], "little") == 1  # by hash, never checked


def test_everyone_may_read_and_only_the_owner_write(tmp_path: Path) -> None:
    packages, app = environment(tmp_path / "a")
    finish(packages, app)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    assert {modes["core.py"], modes["template.py"]} == {0o644}
    assert {modes["tool.sh"], modes["numpy"], modes["service"]} == {0o755}


def test_files_of_another_age_and_mode_give_the_same_image(tmp_path: Path) -> None:
    first = finish(*environment(tmp_path / "a"))
    shutil.rmtree(tmp_path / "a")
    packages, app = environment(tmp_path / "a")
    for path in packages.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert finish(packages, app) == first
