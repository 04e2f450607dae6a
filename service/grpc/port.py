"""Whether the gRPC port can be opened, found out before any worker starts.

The packages of gRPC are optional, so nothing here imports them.
"""

import socket
from importlib.util import find_spec
from ipaddress import ip_address

PACKAGES = ("grpc", "google.protobuf")


def grpc_problem(address: str, port: int) -> str | None:
    """Return why the port cannot be served, as one line, or None."""
    try:
        absent = [name for name in PACKAGES if find_spec(name) is None]
    except ModuleNotFoundError:
        absent = list(PACKAGES)
    if absent:
        return f"EKIBEN_GRPC_PORT={port}: the package {absent[0]} is missing; install the group grpc beside serve"
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    # Without SO_REUSEPORT, with which the port of another service would be shared.
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return f"EKIBEN_GRPC_PORT={port}: {error.strerror}"
    return None
