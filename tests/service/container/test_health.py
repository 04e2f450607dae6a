"""The health check of the image tells a ready service from all others."""

import socket
from pathlib import Path

import pytest

from service.container.health import main
from tests.e2e.serving import ROOT, environment, free_port, start
from tests.service.hosts import GRANIAN, running_server
from tests.service.test_tls import client_context, serving
from tests.service.test_tls_files import CA, write_tls


def test_a_ready_service_is_healthy(served_bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_server(GRANIAN, served_bundles, tmp_path) as started:
        assert main(["--port", str(started.port)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["--port", str(started.port)]) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_a_service_without_models_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundles").mkdir()
    env = environment(EKIBEN_BUNDLES=str(tmp_path / "bundles"), BENTOML_HOME=str(tmp_path))
    with start(GRANIAN, env=env, cwd=ROOT, log=tmp_path / "log", status=503) as started:
        assert main(["--port", str(started.port)]) == 1
    assert f"127.0.0.1:{started.port}: /readyz has status 503" in capsys.readouterr().err


def test_what_is_no_service_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(free_port())]) == 1
    assert "127.0.0.1" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main(["--port", str(silent.getsockname()[1])]) == 1
    assert "timed out" in capsys.readouterr().err


def test_a_service_with_tls_is_checked_without_a_certificate(
    served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EKIBEN_TLS_CERT", "set")
    files = write_tls(tmp_path)
    with serving(GRANIAN, served_bundles, tmp_path, files, client_context()) as (port, _):
        assert main(["--port", str(port)]) == 0
        monkeypatch.delenv("EKIBEN_TLS_CERT")
        assert main(["--port", str(port)]) == 1
    authority = tmp_path / "authority.pem"
    authority.write_bytes(CA.cert_pem.bytes())
    context = client_context()
    CA.issue_cert("client.example").configure_cert(context)
    monkeypatch.setenv("EKIBEN_TLS_CERT", "set")
    monkeypatch.setenv("EKIBEN_TLS_CLIENT_CA", str(authority))
    settings = {"EKIBEN_TLS_CLIENT_CA": str(authority)}
    with serving(GRANIAN, served_bundles, tmp_path, files, context, **settings) as (port, _):
        assert main(["--port", str(port)]) == 0
    assert main(["--port", str(port)]) == 1
    assert "Connection refused" in capsys.readouterr().err
