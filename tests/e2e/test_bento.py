"""`bentoml build` packs the service and its bundles, and the bento serves without anything else.

No container engine is needed: the test installs the requirements of the bento into a new environment and runs its
entrypoint, as its image would.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.supply_chain.listing import sbom_of
from service.manifest import REQUESTS, Manifest
from service.tasks.model_lookup import ENDPOINTS
from service.tasks.replay import compare_answers
from tests.e2e.serving import ROOT, environment, serving

BIN = Path(sys.executable).parent
BENTOML_FILES = {
    "README.md",
    "bento.yaml",
    "apis/openapi.yaml",
    "apis/schema.json",
    "env/docker/Dockerfile",
    "env/docker/Dockerfile.template",
    "env/docker/entrypoint.sh",
    "env/python/install.sh",
    "env/python/requirements.in",
    "env/python/requirements.txt",
    "env/python/version.txt",
    "src/bentofile.yaml",
    "src/LICENSE",
    "src/pyproject.toml",
    "src/constraints/serve.txt",
    "src/deploy/__init__.py",
    "src/deploy/finish_environment.py",
    "src/deploy/licences.toml",
}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def project(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the service and the bundles, and with files that a bento must not contain."""
    project = tmp_path_factory.mktemp("project")
    for name in ("bentofile.yaml", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    for name in ("service", "constraints", "deploy", "training"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copytree(bundles, project / "bundles")
    (project / "runs").mkdir()
    (project / "runs" / "secret.safetensors").write_bytes(b"weights")
    return project


@pytest.fixture(scope="module")
def bento(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bento that was built in `project`."""
    home = tmp_path_factory.mktemp("bentoml")
    build = subprocess.run(
        [BIN / "bentoml", "build", "-o", "tag"],
        cwd=project,
        env=environment(BENTOML_HOME=str(home)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    name, version = build.stdout.strip().removeprefix("__tag__:").split(":")
    return home / "bentos" / name / version


def test_bento_contains_service_and_bundles_only(bento: Path, project: Path) -> None:
    packed = (".py", ".html", ".css", ".js", ".svg", ".txt")
    service = {f"src/service/{name}" for name in files_in(project / "service") if name.endswith(packed)}
    bundles = {f"src/bundles/{name}" for name in files_in(project / "bundles")}
    listing = {f"src/deploy/supply_chain/{path.name}" for path in (ROOT / "deploy" / "supply_chain").glob("*.py")}
    assert files_in(bento) - BENTOML_FILES == service | bundles | listing


def test_packages_are_listed_from_the_files_of_the_bento(bento: Path, tmp_path: Path) -> None:
    """With the steps of the image's builder, which has no package yet."""
    shutil.copytree(bento / "src" / "deploy", tmp_path / "deploy")
    shutil.copy(bento / "src" / "pyproject.toml", tmp_path)
    shutil.copytree(bento / "src" / "constraints", tmp_path / "constraints")
    command = [sys.executable, "-S", "-m", "deploy.supply_chain.listing", "serve"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == sbom_of("serve"), done.stderr


def test_requirements_are_the_pins_and_hashes_of_constraints_serve(bento: Path) -> None:
    words = (bento / "env" / "python" / "requirements.txt").read_text().split()
    assert set(words) == set((ROOT / "constraints" / "serve.txt").read_text().split())
    required = [word for word in words if word != "\\" and not word.startswith("--hash=sha256:")]
    assert all("==" in requirement for requirement in required)
    assert not [requirement for requirement in required if requirement.startswith(("torch", "onnx=", "onnxscript"))]


def test_image_of_the_bento_is_made_like_the_image_with_bundles(bento: Path) -> None:
    """benchmarks/deploy builds and runs it."""
    made = (bento / "env" / "docker" / "Dockerfile").read_text()
    assert made.strip() == (ROOT / "deploy" / "Dockerfile.bento").read_text().strip()


@pytest.fixture(scope="module")
def address(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the entrypoint, run in an environment with the requirements of the bento only."""
    folder = tmp_path_factory.mktemp("fresh")
    venv = folder / "venv"
    subprocess.run([BIN / "uv", "venv", "-q", "--python", sys.executable, venv], check=True)
    requirements = bento / "env" / "python" / "requirements.txt"
    subprocess.run([BIN / "uv", "pip", "install", "-q", "--python", venv, "-r", requirements], check=True)
    env = environment(
        BENTO_PATH=str(bento),
        BENTOML_HOME=str(folder / "home"),
        BENTOML_CONTAINERIZED="true",
        PATH=f"{venv / 'bin'}:{os.environ['PATH']}",
        VIRTUAL_ENV=str(venv),
        # Other tests read the bento as it was built.
        PYTHONDONTWRITEBYTECODE="1",
    )
    env.pop("PYTHONPATH", None)
    command = ["bash", str(bento / "env" / "docker" / "entrypoint.sh"), "serve"]
    with serving(command, env=env, cwd=folder, log=folder / "log") as address:
        yield address


def test_entrypoint_answers_a_request_case_of_every_model(address: str, bundles: Path) -> None:
    tasks = set()
    for current in bundles.glob("*/current"):
        folder = current.parent / current.read_text().strip()
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        case = json.loads((folder / REQUESTS).read_text().splitlines()[0])
        response = httpx.post(address + ENDPOINTS[manifest.task], json=case["request"], timeout=60)
        assert response.status_code == 200, response.text
        assert response.json()["version"] == manifest.version
        assert compare_answers(case["answer"], response.json(), manifest) is None
        tasks.add(manifest.task)
    assert tasks == set(ENDPOINTS) - {"predict"}
