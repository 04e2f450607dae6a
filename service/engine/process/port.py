"""Claims a port for one service: granian's sockets share their port with whoever else asks for that."""

import socket
from ipaddress import ip_address


def claim_port(host: str, port: int) -> socket.socket:
    """Return a bound socket that keeps other services from the port while it is open, and lets our workers listen.

    Raises OSError if another process has the port, and ValueError for a host that is not an address.
    """
    address = ip_address(host)
    claim = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        # Connections of an earlier service may linger; a socket that listens, or that is bound as this one, may not.
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind((str(address), port))
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        claim.close()
        raise
    return claim
