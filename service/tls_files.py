"""The files of TLS: a certificate chain, its private key, and perhaps the authorities of clients' certificates."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files; with `client_ca`, a client must present a certificate of one of its authorities."""

    cert: Path
    key: Path
    client_ca: Path | None

    def check(self) -> None:
        """Load the files as a server does; raise ValueError that names the file and the reason."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for path in self._paths():
            try:
                path.read_bytes()
            except OSError as error:
                raise ValueError(f"{path}: {error.strerror}") from error
        try:
            # A password would be asked for on the terminal.
            context.load_cert_chain(self.cert, self.key, password=_refuse_password)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise ValueError(f"{self.cert} and {self.key}: {_describe(error)}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise ValueError(f"{self.client_ca}: {_describe(error)}") from error

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """Return what changes when a file is replaced or written. Raises OSError."""
        status = map(os.stat, self._paths())
        return tuple((one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns) for one in status)

    def _paths(self) -> list[Path]:
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


def _refuse_password() -> str:
    raise ValueError("the private key is encrypted; expected one without a password")


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return {
            "KEY_VALUES_MISMATCH": "the private key is not that of the certificate",
            "NO_CERTIFICATE_OR_CRL_FOUND": "expected certificates in PEM",
        }.get(error.reason or "", f"expected PEM files of a certificate chain and its key ({error.reason or error})")
    return str(error)
