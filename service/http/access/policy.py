"""Who may do what: every request passes here before any work is done for it, and before its body is read.

In this order: the question of a browser (preflight) is answered; then the name of the host, the origin of the page, the
key, its scope and its limits are checked. Invariant: a check that fails in an unforeseen way admits nobody.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from service.engine.context import UNRESERVED, Permit
from service.errors import EkibenError
from service.http.access.hosts import ANY, HostRule
from service.http.access.keyring import KeyIdentity, Keyring, check_scope
from service.http.access.origins import READING, OriginRule
from service.http.access.rates import KeyLimits, Limit, Usage
from service.http.wire.messages import HttpRequest, Response
from service.keys.key_file import Scope
from service.settings import Settings


class AccessPolicy:
    """The checks of one worker."""

    def __init__(self, *, keyring: Keyring | None, hosts: HostRule | None, origins: OriginRule) -> None:
        """Without a keyring everyone may do everything; without a rule of hosts every name is allowed."""
        self._keyring = keyring
        self._hosts = hosts
        self._origins = origins

    def check(
        self, request: HttpRequest, *, scope: Scope | None, methods: Sequence[str], infers: bool
    ) -> Response | None:
        """Admit a request, with a permit if it takes a place, or return the answer to a preflight.

        `scope` is None for routes that everyone may ask; a request that `infers` is in progress until its permit is
        released. Thread-safe; reads no body.

        Raises EkibenError("misdirected"), ("forbidden"), ("unauthorized") or ("rate-limited").
        """
        permit = None
        if self._origins.is_set:
            request.reply_headers += self._origins.reply_headers(request)
            preflight = self._origins.answer_preflight(request, methods)
            if preflight is not None:
                return preflight
        if scope is not None:
            if self._hosts is not None:
                self._hosts.check(request.header("host"))
            if request.method not in READING:
                self._origins.check(request)
            if self._keyring is not None:
                permit = _check_key(self._keyring, request, scope, infers=infers)
        request.key_permit = permit
        request.is_admitted = True
        return None

    def check_key(self, authorization: str, api_key: str, scope: Scope) -> KeyIdentity | None:
        """Return who sent the values of Authorization and X-API-Key, or None in a service without keys. Thread-safe.

        Raises EkibenError("unauthorized") or ("forbidden").
        """
        if self._keyring is None:
            return None
        identity = self._keyring.identify(authorization, api_key)
        check_scope(identity, scope)
        return identity

    def admit(self, identity: KeyIdentity | None, *, infers: bool) -> Permit:
        """Count a request against the limits of its key; one that `infers` is in progress until the permit is released.

        Raises EkibenError("rate-limited"). Thread-safe.
        """
        if identity is None or identity.limit is None or self._keyring is None:
            return UNRESERVED
        limits = self._keyring.limits
        usage = limits.admit(identity.limit, holds=infers)
        return _permit(limits, identity, identity.limit, usage, infers=infers) or UNRESERVED


def _check_key(keyring: Keyring, request: HttpRequest, scope: Scope, *, infers: bool) -> Permit | None:
    try:
        identity = keyring.identify(request.header("authorization"), request.header("x-api-key"))
        request.key_name = identity.key.name
        check_scope(identity, scope)
    except EkibenError as error:
        challenge = 'Bearer realm="ekiben"'
        if error.slug == "forbidden":
            challenge += f', error="insufficient_scope", scope="{scope}"'
        request.reply_headers.append(("www-authenticate", challenge))
        raise
    if identity.limit is None:
        return None
    usage = keyring.limits.admit(identity.limit, holds=infers)
    request.reply_headers.append(identity.policy)
    request.reply_headers.append(("ratelimit", describe_usage(identity.limit, usage)))
    return _permit(keyring.limits, identity, identity.limit, usage, infers=infers)


def _permit(limits: KeyLimits, identity: KeyIdentity, limit: Limit, usage: Usage, *, infers: bool) -> Permit | None:
    key = identity.key
    if usage.wait_s == math.inf:
        raise EkibenError("rate-limited", f"the key {key.name!r} may have {key.concurrency} requests in progress")
    if usage.wait_s:
        detail = f"the key {key.name!r} may send {key.rate:g} requests a second, {key.burst} at once"
        raise EkibenError("rate-limited", detail, retry_after_s=usage.wait_s)
    if not (infers and limit.concurrency):
        return None
    return Permit(release=lambda _: limits.release(limit.row))


def describe_usage(limit: Limit, usage: Usage) -> str:
    """Return what is left of the limits of a key as the field RateLimit (draft-ietf-httpapi-ratelimit-headers)."""
    if not limit.rate:
        return f'"concurrency";r={max(usage.num_free, 0)}'
    rate = f'"default";r={usage.num_left};t={math.ceil(usage.full_s)}'
    return f'{rate}, "concurrency";r={max(usage.num_free, 0)}' if limit.concurrency else rate


def access_policy(settings: Settings, folder: Path | None) -> AccessPolicy:
    """Return the checks that the settings ask for; the workers of the service count limits in the folder, if any.

    Raises ValueError or OSError for a file of keys that is invalid.
    """
    names = settings.allowed_host_names
    is_open = settings.keys is not None or settings.allow_anonymous
    return AccessPolicy(
        keyring=None if settings.keys is None else Keyring(settings.keys, KeyLimits(folder)),
        hosts=None if ANY in names or (is_open and not names) else HostRule(names),
        origins=OriginRule(settings.allowed_origins),
    )


OPEN = AccessPolicy(keyring=None, hosts=None, origins=OriginRule(frozenset()))  # of a router without settings
