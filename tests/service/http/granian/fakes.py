"""granian's ends of one request, as its thread and the event loop see them."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

from granian.rsgi import ProtocolClosed

from service.engine.runner import Runner
from service.http.body_budget import BodyBudget
from service.http.telemetry.request_metrics import RequestMetrics


class Disconnected:
    """granian's future of a client that has disconnected."""

    def cancel(self, _: Any = None) -> None: ...

    def __await__(self) -> Iterator[None]:
        yield from ()


class Protocol:
    """granian's end of one request: a body in parts, None for a client that disconnects, and the responses."""

    def __init__(self, *parts: bytes | None) -> None:
        self._parts = list(parts)
        self.responses: list[tuple[int, list[tuple[str, str]], bytes]] = []
        self.streamed: list[bytes] = []

    async def __call__(self) -> bytes:
        if None in self._parts:
            raise ProtocolClosed
        return b"".join(part for part in self._parts if part is not None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if part is None:
                raise ProtocolClosed
            yield part

    def client_disconnect(self) -> Any:
        return Disconnected()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.responses.append((status, headers, body))

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Any:
        self.responses.append((status, headers, b""))

        async def send_bytes(body: bytes) -> None:
            self.streamed.append(body)

        return SimpleNamespace(send_bytes=send_bytes)


class Headers(dict[str, str | None]):
    """granian's headers, of which each has one value here; None for one that granian cannot decode."""

    def get_all(self, name: str) -> list[str]:
        value = self.get(name)
        return [] if value is None else [value]


def scope(path: str = "/x", method: str = "POST", **headers: str | None) -> Any:
    named = Headers({"host": "x"} | {name.replace("_", "-"): value for name, value in headers.items()})
    return SimpleNamespace(
        proto="http", http_version="1.1", scheme="http", client="127.0.0.1:5", server="127.0.0.1:3000", method=method,
        path=path, query_string="a=%20b", headers=named,
    )  # fmt: skip


def state_with(runner: Any = None, **fields: Any) -> Any:
    """A service with little more than a runner."""
    bodies = BodyBudget(1 << 20, 10, ())
    fields = {"closing": False, "max_body_bytes": 10, "bodies": bodies, "trusted_proxies": (), **fields}
    return SimpleNamespace(request_metrics=RequestMetrics(), runner=runner or Runner(), **fields)
