"""Both hosts speak TLS, with certificates of clients if they are asked for; a renewed certificate needs no restart."""

import contextlib
import hashlib
import http.client
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trustme

from service.tls_files import TlsFiles
from tests.e2e.serving import ROOT, SERVE, ends_with_parent, environment, free_port
from tests.service.hosts import GRANIAN, IMAGES, JSON, wait_until
from tests.service.test_tls_files import CA, write_tls

HOSTS = [(*GRANIAN, "--workers", "2"), SERVE]
IDS = ["granian", "bentoml"]


def client_context(**versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


def ask(port: int, context: ssl.SSLContext, method: str = "GET", path: str = "/readyz", content: str = "") -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        connection.request(method, path, content, JSON)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@contextlib.contextmanager
def serving(
    command: tuple[str, ...], bundles: Path, folder: Path, files: TlsFiles, ready: ssl.SSLContext, **settings: str
) -> Iterator[tuple[int, int]]:
    """A host that is ready; its port and process."""
    port = free_port()
    tls = {"EKIBEN_TLS_CERT": str(files.cert), "EKIBEN_TLS_KEY": str(files.key)}
    env = environment(EKIBEN_BUNDLES=str(bundles), BENTOML_HOME=str(folder), **tls, **settings)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ends_with_parent([*command, "--host", "127.0.0.1", "--port", str(port)]),
            cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(port, ready) == 200
        return False

    try:
        wait_until(is_ready, 120)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("command", HOSTS, ids=IDS)
def test_https_is_spoken_and_nothing_else(command: tuple[str, ...], served_bundles: Path, tmp_path: Path) -> None:
    with serving(command, served_bundles, tmp_path, write_tls(tmp_path), client_context()) as (port, _):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(minimum_version=version, maximum_version=version)
            assert ask(port, context, "POST", "/classify", IMAGES) == 200
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old = client_context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
        with pytest.raises(ssl.SSLError):
            ask(port, old)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, ssl.create_default_context())
        cleartext = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        cleartext.request("GET", "/readyz")
        with contextlib.closing(cleartext), pytest.raises((http.client.HTTPException, OSError)):
            cleartext.getresponse()


@pytest.mark.parametrize("command", HOSTS, ids=IDS)
def test_clients_present_a_certificate_if_they_must(
    command: tuple[str, ...], served_bundles: Path, tmp_path: Path
) -> None:
    files = write_tls(tmp_path)
    known, stranger = client_context(), client_context()
    CA.issue_cert("client@example.org").configure_cert(known)
    trustme.CA().issue_cert("client@example.org").configure_cert(stranger)
    settings = {"EKIBEN_TLS_CLIENT_CA": str(files.client_ca)}
    with serving(command, served_bundles, tmp_path, files, known, **settings) as (port, _):
        assert ask(port, known, "POST", "/classify", IMAGES) == 200
        for context in (client_context(), stranger):
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(port, context)


def fingerprint(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    with contextlib.closing(connection):
        connection.connect()
        certificate = connection.sock.getpeercert(binary_form=True)
        assert certificate
        return hashlib.sha256(certificate).hexdigest()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_renewed_certificate_is_used_without_a_restart(
    num_workers: int, served_bundles: Path, tmp_path: Path
) -> None:
    """Under load: every request is answered, on another connection if its own was idle when its worker ended."""
    files, context = write_tls(tmp_path), client_context()
    command = (*GRANIAN, "--workers", str(num_workers))
    with serving(command, served_bundles, tmp_path, files, context) as (port, pid):
        before, workers = fingerprint(port, context), worker_pids(pid)
        with loading(port, context) as statuses:
            write_tls(tmp_path)
            wait_until(lambda: len(worker_pids(pid) - workers) == num_workers and not workers & worker_pids(pid))
            assert before not in {fingerprint(port, context) for _ in range(20)}
        assert set(statuses) <= {200, "reconnected"}
        assert statuses["reconnected"] <= 4 * num_workers
        files.key.write_text("nonsense")
        wait_until(lambda: "the certificate of before stays in use" in (tmp_path / "log").read_text())
        assert ask(port, context, "POST", "/classify", IMAGES) == 200


@contextlib.contextmanager
def loading(port: int, context: ssl.SSLContext) -> Iterator[Counter[int | str]]:
    """Two clients that send one request after the other; what came of their requests."""
    stop, statuses = threading.Event(), Counter[int | str]()

    def load() -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        while not stop.wait(0.002):
            try:
                connection.request("POST", "/classify", IMAGES, JSON)
                response = connection.getresponse()
                response.read()
                statuses[response.status] += 1
            except (OSError, http.client.HTTPException):
                statuses["reconnected"] += 1
                connection.close()
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def worker_pids(pid: int) -> set[int]:
    """The processes that listen: the workers."""
    pids = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(one.status == psutil.CONN_LISTEN for one in child.net_connections("inet")):
                pids.add(child.pid)
    return pids


@pytest.mark.parametrize("command", HOSTS, ids=IDS)
def test_files_that_cannot_be_loaded_end_the_command_with_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    files = write_tls(tmp_path)
    files.cert.write_text("nonsense")
    env = environment(EKIBEN_TLS_CERT=str(files.cert), EKIBEN_TLS_KEY=str(files.key))
    done = subprocess.run(
        [*command, "--port", str(free_port())],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"TLS: {files.cert} and {files.key}: expected PEM files")
    assert "Traceback" not in done.stderr
