"""Limits the memory of the bodies that requests in flight hold, for all clients and for each.

Invariant: a body of declared length is counted before any of it is read, one of unknown length as it arrives, and an
unpacked one once more. A refused body is not read on, and changes nothing for other requests.
"""

import threading
from collections.abc import Sequence

from service.errors import EkibenError
from service.http.wire.messages import HttpRequest, Network, client_address

FREE_BYTES = 1 << 16  # of each body: small ones are bounded by the number of connections
CLIENT_SHARE = 0.5


class BodyBudget:
    """The bodies of one process; thread-safe."""

    def __init__(self, max_bytes: int, max_body_bytes: int, trusted_proxies: Sequence[Network]) -> None:
        """One body of `max_body_bytes` is never too much."""
        self._max_bytes = max(max_bytes, max_body_bytes)
        self._max_client_bytes = max(int(max_bytes * CLIENT_SHARE), max_body_bytes)
        self._trusted_proxies = trusted_proxies
        self._lock = threading.Lock()
        self._total = 0
        self._by_client: dict[str, int] = {}

    def reserve(self, request: HttpRequest, num_bytes: int) -> None:
        """Count `num_bytes` for the request in all. Raises EkibenError("rate-limited" or "overloaded")."""
        more = num_bytes - request.reserved_bytes
        if num_bytes <= FREE_BYTES or more <= 0:
            return
        client = self._client(request)
        with self._lock:
            of_client = self._by_client.get(client, 0) + more
            if of_client > self._max_client_bytes:
                detail = f"the bodies of your requests exceed {self._max_client_bytes} bytes; wait for answers"
                raise EkibenError("rate-limited", detail, retry_after_s=1.0)
            if self._total + more > self._max_bytes:
                detail = f"the bodies of the requests in flight exceed {self._max_bytes} bytes"
                raise EkibenError("overloaded", detail, retry_after_s=1.0)
            self._by_client[client] = of_client
            self._total += more
            request.reserved_bytes = num_bytes

    def release(self, request: HttpRequest) -> None:
        """Forget the body of the request."""
        num_bytes, request.reserved_bytes = request.reserved_bytes, 0
        if num_bytes:
            client = self._client(request)
            with self._lock:
                self._total -= num_bytes
                self._by_client[client] -= num_bytes
                if not self._by_client[client]:
                    del self._by_client[client]

    def _client(self, request: HttpRequest) -> str:
        address = client_address(request, self._trusted_proxies)
        return request.client.rpartition(":")[0] if address == request.client else address
