"""`ekiben` from the files of the wheel alone, in a folder that has nothing of the checkout."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.http.openapi.document import VERSION
from tests.e2e.serving import ServerProcess, environment, start
from tests.service.hosts import ask, classify
from tests.wheel import build_wheel

EKIBEN = (sys.executable, "-m", "ekiben")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build_wheel(folder)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def server(site: Path, served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("elsewhere")
    env = environment(PYTHONPATH=str(site), BENTOML_HOME=str(folder))
    command = (*EKIBEN, "serve", "--bundles", str(served_bundles))
    with start(command, env=env, cwd=folder, log=folder / "log") as started:
        yield started


def test_the_installed_service_answers(server: ServerProcess) -> None:
    status, _, body = classify(server.port)
    assert status == 200
    assert {"model", "version", "predictions"} <= set(json.loads(body))


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/openapi.json", "application/json")])
def test_its_pages_are_packed(path: str, kind: str, server: ServerProcess) -> None:
    status, headers, body = ask(server.port, "GET", path, accept=kind)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert body


def test_its_metrics_name_version_and_revision(server: ServerProcess, site: Path) -> None:
    _, _, body = ask(server.port, "GET", "/metrics")
    [line] = [line for line in body.decode().splitlines() if line.startswith("ekiben_build_info")]
    revision = (
        (site / "ekiben" / "REVISION").read_text().strip() if (site / "ekiben" / "REVISION").exists() else "unknown"
    )
    assert f'version="{VERSION}"' in line
    assert f'revision="{revision}"' in line


def test_it_inspects_and_scores_elsewhere(site: Path, served_bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\nthe train leaves at noon\nrice\n")
    env = environment(PYTHONPATH=str(site), EKIBEN_BUNDLES=str(served_bundles))

    def run(*words: str) -> str:
        command = [*EKIBEN, *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("inspect", "tiny-texts").startswith("tiny-texts ")
    assert "2 scored, 0 rejected" in run("score", "--model", "tiny-texts", "--input", "texts.csv", "--output", "scored")
