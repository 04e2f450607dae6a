"""The files of one bundle in a folder, behind HTTP, or in object storage.

Invariant: a store gives bytes and decides nothing about them; who asks checks their size and hash.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx

from service.fetch.source import DeniedError, FetchError, without_credentials

CHUNK_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(60, connect=10)
CONNECT_DELAYS_S = (0.0, 0.5, 1.0)  # until a connection that failed is tried again


class Store(Protocol):
    """A place that holds files by name."""

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content in parts. Raises FileNotFoundError, or FetchError with one line: DeniedError if refused."""


def open_store(place: str) -> Store:
    """Return the store that the place names: http(s)://, an object store of `service.scoring`, or a local folder."""
    scheme, separator, _ = place.partition("://")
    if not separator or scheme == "file":
        return FolderStore(Path(place.removeprefix("file://")))
    return HttpStore(place) if scheme in {"http", "https"} else ObjectStore(place)


def new_client() -> httpx.Client:
    """Return a client that follows redirects, tries again to connect, and uses the proxies of the environment."""
    return _Client(follow_redirects=True, timeout=TIMEOUT)


class _Client(httpx.Client):
    """httpx counts retries in a transport, and with a transport of one's own it ignores the proxies."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for delay_s in CONNECT_DELAYS_S:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return super().send(request, **options)
            time.sleep(delay_s)
        return super().send(request, **options)


class FolderStore:
    """A folder, such as a mounted volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Iterator[bytes]:
        try:
            with (self._folder / name).open("rb") as file:
                while part := file.read(CHUNK_BYTES):
                    yield part
        except FileNotFoundError:
            raise
        except OSError as error:
            raise FetchError(f"{self._folder / name}: {error.strerror}") from error


class HttpStore:
    """A URL below which the files lie; its query, such as a signature of the server, belongs to each of them."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._client = new_client()

    def read(self, name: str) -> Iterator[bytes]:
        url = urlunsplit(self._parts._replace(path=f"{self._parts.path.rstrip('/')}/{name}", fragment=""))
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise FileNotFoundError(url)
                if response.status_code != httpx.codes.OK:
                    kind = DeniedError if response.status_code == httpx.codes.FORBIDDEN else FetchError
                    raise kind(f"{without_credentials(url)}: the server answers {response.status_code}")
                yield from response.iter_bytes(CHUNK_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"{without_credentials(url)}: {error or type(error).__name__}") from error


class ObjectStore:
    """A prefix of a bucket; options and credentials are those of scoring (docs/scoring.md)."""

    def __init__(self, place: str) -> None:
        # Needs the dependency group `batch`, which the image of the service does not have.
        from service.scoring.job import ScoringError  # noqa: PLC0415
        from service.scoring.storage import object_store  # noqa: PLC0415
        from service.scoring.storage.location import parse_location  # noqa: PLC0415

        try:
            self._location = parse_location(place, option="source")
            if self._location.kind == "hdfs":
                raise FetchError(f"{self._location}: HDFS is not supported; copy the bundle to a folder first")
            self._store = object_store.open_store(self._location)
        except ScoringError as error:
            raise FetchError(str(error)) from error
        self._errors = object_store.store_errors

    def read(self, name: str) -> Iterator[bytes]:
        from obstore.exceptions import PermissionDeniedError  # noqa: PLC0415 - the store was opened before

        location = self._location.child(name)
        try:
            with self._errors(str(location)):
                for part in self._store.get(location.path).stream(CHUNK_BYTES):
                    yield bytes(part)
        except FileNotFoundError:
            raise
        except OSError as error:
            kind = DeniedError if isinstance(error.__cause__, PermissionDeniedError) else FetchError
            raise kind(str(error)) from error
