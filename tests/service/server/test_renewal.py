"""Renewed files of TLS are noticed, and only whole ones count."""

import logging
import os
import socket
from pathlib import Path

import pytest
import trustme

from service.server.renewal import CertificateWatch, listens
from tests.service.test_tls_files import write_tls


def test_a_renewal_is_noticed_once(tmp_path: Path) -> None:
    renewals: list[int] = []
    watch = CertificateWatch(write_tls(tmp_path), lambda: renewals.append(1))
    watch.check()
    assert not renewals
    write_tls(tmp_path)
    watch.check()
    watch.check()
    assert renewals == [1]


def test_half_a_renewal_is_logged_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    renewals: list[int] = []
    files = write_tls(tmp_path)
    watch = CertificateWatch(files, lambda: renewals.append(1))
    issued = trustme.CA().issue_cert("localhost")
    files.cert.write_bytes(issued.cert_chain_pems[0].bytes())
    watch.check()
    watch.check()
    assert not renewals
    assert caplog.text.count("the private key is not that of the certificate") == 1
    files.key.write_bytes(issued.private_key_pem.bytes())
    watch.check()
    assert renewals == [1]
    files.key.unlink()
    watch.check()
    assert renewals == [1]


def test_a_process_that_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)
    assert not listens(2**22 + 1, port)
