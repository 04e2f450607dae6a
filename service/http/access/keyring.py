"""The keys that the service accepts, read again when their file changes.

Invariant: a request is compared with the keys of one version of the file. A new version that is invalid is logged and
not used. Keys are found by their SHA-256, so what a caller can measure depends on the hash of what it sent, never on a
key.
"""

import logging
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from service.errors import EkibenError
from service.http.access.rates import KeyLimits, Limit
from service.keys.key_file import Key, Scope, digest_key, read_keys

POLL_S = 1.0
HOW = "send `Authorization: Bearer KEY` or `X-API-Key: KEY`"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyIdentity:
    """Who sent a request."""

    key: Key
    limit: Limit | None
    policy: tuple[str, str]  # the field RateLimit-Policy of a key with limits


class Keyring:
    """The keys of a file; a thread looks every second whether it has changed."""

    def __init__(self, path: Path, limits: KeyLimits, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError or OSError if the file is invalid."""
        self._path = path
        self.limits = limits
        self._clock = clock
        self._stamp = _stamp(path)
        self._identities = self._read()
        if path.stat().st_mode & stat.S_IROTH:
            log.warning("%s can be read by every user: it holds hashes, but also the names of clients", path)
        threading.Thread(target=self._poll, name="key-file", daemon=True).start()

    def identify(self, authorization: str, api_key: str) -> KeyIdentity:
        """Return who sent the values of the headers Authorization and X-API-Key. Thread-safe.

        Raises EkibenError("unauthorized").
        """
        if authorization.startswith("Bearer ") and not api_key:
            key = authorization[7:].strip()
        else:
            key = _choose_key(authorization, api_key)
        try:
            digest = digest_key(key)
        except ValueError:
            raise EkibenError("unauthorized", "the key is not valid") from None
        identity = self._identities.get(digest)
        if identity is None or not compare_digest(identity.key.digest, digest):
            raise EkibenError("unauthorized", "the key is not valid")
        if identity.key.expires_at < math.inf and identity.key.expires_at <= self._clock():
            raise EkibenError("unauthorized", f"the key {identity.key.name!r} has expired")
        return identity

    def reload(self) -> None:
        """Read the file again if it has changed; keep the keys if it is invalid."""
        try:
            stamp = _stamp(self._path)
        except OSError as error:
            stamp = (str(error),)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._identities = self._read()
        except (OSError, ValueError) as error:
            log.error("%s: %s; the keys of before stay in use", self._path, error)
        else:
            log.info("%s: %d keys are in use", self._path, len(self._identities))

    def _read(self) -> Mapping[bytes, KeyIdentity]:
        return {
            key.digest: KeyIdentity(
                key=key,
                limit=self.limits.limit(key),
                policy=("ratelimit-policy", describe_policy(key)),
            )
            for key in read_keys(self._path)
        }

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_S)
            try:
                self.reload()
            except Exception:  # the thread must outlast what nobody foresaw
                log.exception("%s could not be read again", self._path)


def _choose_key(authorization: str, api_key: str) -> str:
    """Return the key that two headers give, in any spelling."""
    scheme, _, bearer = authorization.partition(" ")
    if scheme.lower() != "bearer":
        # Some proxies add credentials of their own; they are not ours to judge.
        bearer = ""
    elif not (bearer := bearer.strip()):
        raise EkibenError("unauthorized", f"Authorization names no key; {HOW}")
    if bearer and api_key and not compare_digest(bearer.encode(), api_key.encode()):
        raise EkibenError("unauthorized", "Authorization and X-API-Key give different keys; send one of them")
    if not (key := bearer or api_key):
        raise EkibenError("unauthorized", f"a key is needed; {HOW}")
    return key


def check_scope(identity: KeyIdentity, scope: Scope) -> None:
    """Raise EkibenError("forbidden") unless the key has the scope."""
    if scope not in identity.key.scopes:
        raise EkibenError("forbidden", f"the key {identity.key.name!r} lacks the scope {scope!r}")


def describe_policy(key: Key) -> str:
    """Return the limits of a key as the field RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers)."""
    policies = []
    if key.rate:
        policies.append(f'"default";q={key.burst};w={math.ceil(key.burst / key.rate)}')
    if key.concurrency:
        policies.append(f'"concurrency";q={key.concurrency};qu="concurrent-requests"')
    return ", ".join(policies)


def _stamp(path: Path) -> tuple[int | str, ...]:
    """What changes with the file; a link is followed, because secrets are mounted as links."""
    status = os.stat(path)  # noqa: PTH116 - a Path would be made again every second
    return status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, status.st_ctime_ns
