"""The command: few options, and a sentence for what cannot be."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import ROOT, SERVE, environment, free_port
from tests.service.engine.sessions.test_device import no_gpu_build
from tests.service.hosts import GRANIAN, classify, running_server


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_options_are_few() -> None:
    done = run("--help")
    assert done.returncode == 0
    options = {word for word in done.stdout.split() if word.startswith("--")}
    assert options == {"--help", "--host", "--port", "--workers", "--bundles"}


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("--workers", "0"), {}, "--workers: expected at least 1, got 0"),
        (("--workers", "many"), {}, "--workers: expected a number or auto, got 'many'"),
        (("--port", "65536"), {}, "--port: expected 1 to 65535, got 65536"),
        (("--port", "0"), {}, "--port: expected 1 to 65535, got 0"),
        (("--bundles", "nowhere"), {}, "--bundles: nowhere is not a folder; name the folder that export wrote"),
        (("--host", "here"), {}, "--host here --port 3000: 'here' does not appear to be an IPv4 or IPv6 address"),
        ((), {"EKIBEN_GRACE_S": "never"}, "EKIBEN_GRACE_S='never'"),
        ((), {"EKIBEN_GRACES": "1"}, "no such setting: EKIBEN_GRACES"),
        ((), {"EKIBEN_KEYS": "/nothing"}, "EKIBEN_KEYS='/nothing': No such file or directory"),
        (("--host", "0.0.0.0", "--port", "65431"), {}, "without keys the service listens on 127.0.0.1 or ::1 only"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], settings: dict[str, str], said: str) -> None:
    done = run(*(arguments or ("--port", str(free_port()))), **settings)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.linesep in done.stderr


def test_the_folder_of_one_model_is_not_the_folder_of_bundles(tmp_path: Path) -> None:
    (tmp_path / "current").touch()
    done = run("--bundles", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path} is the folder of one model; name the folder that holds it" in done.stderr


def test_auto_starts_one_worker_per_core(served_bundles: Path, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:1])
    try:
        with running_server((*GRANIAN, "--workers", "auto"), served_bundles, tmp_path) as started:
            assert len(psutil.Process(started.process.pid).children()) == 1
    finally:
        os.sched_setaffinity(0, before)


@no_gpu_build
@pytest.mark.parametrize(
    "command", [(*GRANIAN, "--workers", "2"), (*SERVE, "--api-workers", "2")], ids=["granian", "bentoml"]
)
def test_a_device_that_is_not_there_is_said_once(command: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [*command, "--host", "127.0.0.1", "--port", str(free_port())],
        cwd=ROOT, env=environment(EKIBEN_DEVICE="cuda", BENTOML_HOME=str(tmp_path)), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("device 'cuda' was requested, but this onnxruntime has only ")


def test_a_port_that_another_has_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == f"python -m service: error: --host 127.0.0.1 --port {port}: Address already in use"


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_a_second_service_does_not_share_the_port_of_a_first(
    command: tuple[str, ...], served_bundles: Path, tmp_path: Path
) -> None:
    """granian's workers share their port with whoever else asks for that."""
    with running_server(GRANIAN, served_bundles, tmp_path) as first:
        env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(tmp_path))
        second = subprocess.run(
            [*command, "--host", "127.0.0.1", "--port", str(first.port)],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert second.returncode != 0
    (line,) = second.stderr.splitlines()
    assert line.endswith(f"--host 127.0.0.1 --port {first.port}: Address already in use")


NO_FOLDER = """
import tempfile


def find():
    raise FileNotFoundError(2, "No usable temporary directory found")


tempfile._get_default_tempdir = find
"""


def test_one_worker_needs_no_temporary_folder(served_bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FOLDER)
    with running_server(GRANIAN, served_bundles, tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}") as host:
        assert classify(host.port)[0] == 200
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_host_that_needs_a_temporary_folder_says_so(served_bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FOLDER)
    path = f"{tmp_path}:{ROOT}"
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(tmp_path), PYTHONPATH=path)
    done = subprocess.run(
        [*SERVE, "--port", str(free_port())],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("bentoml serve needs a temporary folder")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 3.0])
def test_process_1_ends_on_sigterm_at_any_moment(delay_s: float, served_bundles: Path) -> None:
    """The kernel ignores a signal that process 1 of a container does not handle."""
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make a process namespace")
    command = [*inside, *GRANIAN, "--port", str(free_port())]
    env = environment(EKIBEN_BUNDLES=str(served_bundles), EKIBEN_DRAIN_S="0")
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as outer:
        time.sleep(delay_s)
        (first,) = psutil.Process(outer.pid).children()
        first.terminate()
        assert outer.wait(timeout=20) == 0
        assert outer.stdout is not None
        assert b"Traceback" not in outer.stdout.read()


def test_workers_log_when_a_model_is_ready(served_bundles: Path, tmp_path: Path) -> None:
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path) as host:
        pass
    line = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO (\d+) service\.\S+: (\S+) [0-9a-f]{12} READY on "
    said = re.findall(line, (tmp_path / "log").read_text(), re.MULTILINE)
    assert {name for _, name in said} == {folder.name for folder in served_bundles.iterdir()}
    assert str(host.process.pid) not in {pid for pid, _ in said}
