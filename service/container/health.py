"""The health check of the image: python -m service.container.health [--port 3000]

It exits with 0 if the service on this port of this machine is ready, else with 1. It needs no other program, no key
and no certificate.
"""

import argparse
import os
import ssl
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection

ADDRESS = "127.0.0.1"
TIMEOUT_S = 4
MAX_SHOWN = 300


def check(port: int, *, has_tls: bool, has_client_ca: bool) -> str | None:
    """Return why the service is not ready, or None if it is.

    A service that asks for certificates of clients counts as ready when it does so: the check has none.
    """
    connection = HTTPConnection(ADDRESS, port, timeout=TIMEOUT_S)
    if has_tls:
        # The certificate is for the names of clients, and nothing secret is sent.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = HTTPSConnection(ADDRESS, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(MAX_SHOWN).decode(errors="replace")
    except ssl.SSLError as error:
        return None if has_client_ca else f"{ADDRESS}:{port}: {error}"
    except (OSError, HTTPException) as error:
        return f"{ADDRESS}:{port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if response.status == 200 else f"{ADDRESS}:{port}: /readyz has status {response.status}: {body}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m service.container.health", description="Check that the service of this container is ready."
    )
    parser.add_argument("--port", type=int, default=3000, help="port of the service (default: 3000)")
    port = parser.parse_args(argv).port
    has_tls, has_client_ca = bool(os.environ.get("EKIBEN_TLS_CERT")), bool(os.environ.get("EKIBEN_TLS_CLIENT_CA"))
    reason = check(port, has_tls=has_tls, has_client_ca=has_client_ca)
    if reason is not None:
        print(reason, file=sys.stderr)
    return int(reason is not None)


if __name__ == "__main__":
    sys.exit(main())
