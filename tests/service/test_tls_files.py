"""Files of TLS that no server could load are one sentence."""

from pathlib import Path

import pytest
import trustme

from service.tls_files import TlsFiles

CA = trustme.CA()


def write_tls(folder: Path, authority: trustme.CA = CA) -> TlsFiles:
    """A certificate of localhost, its key, and the authority."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    return TlsFiles(cert=folder / "cert.pem", key=folder / "key.pem", client_ca=folder / "ca.pem")


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as to

    loaded = to.load_pem_private_key(key, None)
    return loaded.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.BestAvailableEncryption(b"secret"))


def test_files_that_belong_together_are_accepted(tmp_path: Path) -> None:
    write_tls(tmp_path).check()


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    files = write_tls(tmp_path)
    key = files.key.read_bytes()
    other = CA.issue_cert("localhost").private_key_pem.bytes()
    for path, content, said in (
        (files.cert, None, f"{files.cert}: No such file or directory"),
        (files.key, None, f"{files.key}: No such file or directory"),
        (files.cert, b"", "expected PEM files of a certificate chain and its key"),
        (files.cert, b"nonsense", "expected PEM files of a certificate chain and its key"),
        (files.key, b"nonsense", "expected PEM files of a certificate chain and its key"),
        (files.key, other, "the private key is not that of the certificate"),
        (files.key, encrypted(key), "the private key is encrypted"),
        (files.client_ca, b"", f"{files.client_ca}: "),
        (files.client_ca, None, f"{files.client_ca}: No such file or directory"),
    ):
        assert path is not None
        whole = path.read_bytes()
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r".") as caught:
            files.check()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    files.check()


def test_a_renewed_file_has_another_stamp(tmp_path: Path) -> None:
    files = write_tls(tmp_path)
    before = files.stamp()
    assert files.stamp() == before
    renewed = tmp_path / "renewed"
    renewed.write_bytes(files.cert.read_bytes())
    renewed.replace(files.cert)
    assert files.stamp() != before
