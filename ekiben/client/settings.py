"""What clients of both kinds are made with, and how they write requests."""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ekiben.client.attempts import Deadline, ServiceCall

ITEM_FIELDS = ("images", "texts", "sequences", "rows")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`timeout_s` bounds each call with all its retries; `verify` is an SSL context, or whether certificates count."""

    url: str
    api_key: str | None
    timeout_s: float
    max_retries: int
    verify: ssl.SSLContext | bool

    def request(self, call: ServiceCall[Any], headers: Mapping[str, str], deadline: Deadline) -> httpx.Request:
        sent = {"accept-encoding": "identity", **headers}
        if self.api_key is not None:
            sent["authorization"] = f"Bearer {self.api_key}"
        url = self.url + call.path
        return httpx.Request(call.method, url, headers=sent, content=call.body, extensions={"timeout": deadline})

    def deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self.timeout_s if timeout_s is None else timeout_s)

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return the context that all connections share, because it takes tens of milliseconds to make."""
        return httpx.create_ssl_context(self.verify) if self.url.startswith("https:") else False


def items_of(fields: Mapping[str, Any]) -> tuple[str, Iterable[Any], dict[str, Any]]:
    """Return the field that holds the items, the items, and the options beside them."""
    given = [name for name in ITEM_FIELDS if name in fields]
    if len(given) != 1:
        raise TypeError(f"expected one of {', '.join(ITEM_FIELDS)}, got {', '.join(given) or 'none'}")
    return given[0], fields[given[0]], {name: value for name, value in fields.items() if name != given[0]}
