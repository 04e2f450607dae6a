"""The three requests of a registry of OCI artifacts: a manifest, a blob, and a token for both.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md. A registry on this machine is asked over HTTP,
every other one over HTTPS. Credentials come from the config.json of container engines (`DOCKER_CONFIG`).
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from service.fetch.source import OCI, FetchError
from service.fetch.stores import CHUNK_BYTES, new_client

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_MANIFEST_BYTES = 4 << 20  # the limit of the specification
# Aliases of Docker Hub; the last one is the host of its registry.
DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
LOCAL = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")


class Registry:
    """One repository of a registry: oci://HOST/REPOSITORY."""

    def __init__(self, place: str) -> None:
        self._host, _, self._repository = place.removeprefix(OCI).partition("/")
        if not self._host or not self._repository:
            raise FetchError(f"{place}: expected oci://HOST/REPOSITORY")
        scheme = "http" if LOCAL.fullmatch(self._host) else "https"
        server = DOCKER_HUB[-1] if self._host in DOCKER_HUB else self._host
        self._base = f"{scheme}://{server}/v2/{self._repository}"
        self._client = new_client()
        self._headers: dict[str, str] = {}

    def manifest(self, digest: str) -> bytes:
        """Return the bytes that the registry has under this digest."""
        content = b""
        with self._get(f"manifests/{digest}", accept=", ".join(MANIFEST_TYPES)) as response:
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_MANIFEST_BYTES:
                    raise FetchError(f"{self._name(digest)}: the manifest has more than {MAX_MANIFEST_BYTES} bytes")
        return content

    def blob(self, digest: str) -> Iterator[bytes]:
        """Yield the content of a layer in parts."""
        with self._get(f"blobs/{digest}", accept="*/*") as response:
            yield from response.iter_bytes(CHUNK_BYTES)

    @contextmanager
    def _get(self, path: str, *, accept: str) -> Iterator[httpx.Response]:
        name = self._name(path.partition("/")[2])
        try:
            for is_last in (False, True):
                headers = {"accept": accept, **self._headers}
                with self._client.stream("GET", f"{self._base}/{path}", headers=headers) as response:
                    if response.status_code == httpx.codes.OK:
                        yield response
                        return
                    if response.status_code != httpx.codes.UNAUTHORIZED or is_last:
                        raise FetchError(f"{name}: the registry answers {response.status_code}")
                    challenge = response.headers.get("www-authenticate", "")
                self._headers = {"authorization": self._authorize(challenge, name)}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"{name}: {error or type(error).__name__}") from error

    def _authorize(self, challenge: str, name: str) -> str:
        """Return the header that answers the challenge: Basic, or a token of the service that it names."""
        credentials = _credentials(self._host)
        basic = {"authorization": f"Basic {credentials}"} if credentials else {}
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and credentials:
            return basic["authorization"]
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise FetchError(
                f"{name}: the registry asks for credentials: set DOCKER_CONFIG to a folder with config.json"
            )
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        response = self._client.get(fields["realm"], params=query, headers=basic)
        token = _token(response)
        if token is None:
            raise FetchError(f"{name}: the registry gives no token, but {response.status_code}: check DOCKER_CONFIG")
        return f"Bearer {token}"

    def _name(self, digest: str) -> str:
        return f"{OCI}{self._host}/{self._repository}@{digest}"


def _token(response: httpx.Response) -> str | None:
    try:
        content = response.json()
        token = content.get("token") or content.get("access_token")
    except (ValueError, AttributeError):
        return None
    return token if isinstance(token, str) and response.status_code == httpx.codes.OK else None


def _credentials(host: str) -> str | None:
    """Return what config.json has for this host, in base64; engines may write it as https://HOST/v1/."""
    hosts = DOCKER_HUB if host in DOCKER_HUB else (host,)
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        entries = json.loads((folder / "config.json").read_text())["auths"]
        entry = next(entries[key] for key in entries if re.sub("^https?://|(/v[12])?/?$", "", key) in hosts)
        if "auth" in entry:
            return str(entry["auth"])
        return base64.b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
