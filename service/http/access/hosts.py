"""The names under which the service may be addressed.

Without keys, the service trusts whoever can connect to it, and every web page that the user of the machine opens could:
a page whose name its owner points at 127.0.0.1 is of the same origin as the service (DNS rebinding). The name gives it
away: it is in the header Host, and the owner of a page controls only names with a dot.
"""

from functools import lru_cache
from ipaddress import ip_address

from service.errors import EkibenError

ANY = "*"
SHOWN_CHARS = 80


class HostRule:
    """`allowed` holds names without ports, or `*`; if it is empty, names that lead to this machine are allowed."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self._is_allowed = lru_cache(64)(self._decide)

    def check(self, host: str) -> None:
        """Raise EkibenError("misdirected") unless the value of the header Host is allowed; browsers always send one."""
        if host and not self._is_allowed(host):
            detail = (
                f"the service does not answer under the name {host[:SHOWN_CHARS]!r}; EKIBEN_ALLOWED_HOSTS adds names"
            )
            raise EkibenError("misdirected", detail)

    def _decide(self, host: str) -> bool:
        name = host_name(host)
        return name in self._allowed if self._allowed else is_local(name)


def host_name(host: str) -> str:
    """Return the name or address in a header Host, in lower case, without port, brackets and the dot of the root."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    before, colon, port = name.rpartition(":")
    return (before if colon and (port.isdigit() or not port) else name).removesuffix(".")


def is_local(name: str) -> bool:
    """Return whether a name leads to this machine, or is one that no public name server gives: one without a dot."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return "." not in name or name.endswith(".localhost")
