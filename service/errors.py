"""The one error type of the service.

A domain error knows a slug, a sentence for people and the places in the request it speaks of; it knows nothing of HTTP.
`service.http.wire.errors` holds the only table that turns a slug into a status.
"""

from dataclasses import dataclass
from typing import Literal

Slug = Literal[
    "malformed-json",  # the body cannot be parsed
    "unsupported-media-type",
    "body-too-large",
    "invalid-request",  # parsed, but a field or an item is wrong
    "unknown-model",
    "unknown-route",
    "method-not-allowed",
    "wrong-task",  # the model exists, but serves another task
    "not-ready",
    "overloaded",
    "timeout",
    "internal",
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One place in a request and what is wrong there.

    `pointer` is a JSON Pointer (RFC 6901) into the request body, such as `/images/3`.
    """

    pointer: str
    detail: str


class EkibenError(Exception):
    """An error that its reader can act on: slug, sentence, and every field and item it concerns.

    `retry_after_s` says in how many seconds the same request should be answered, where that is known.
    """

    def __init__(
        self, slug: Slug, detail: str, faults: tuple[Fault, ...] = (), *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.slug: Slug = slug
        self.detail = detail
        self.faults = faults
        self.retry_after_s = retry_after_s


class BundleError(ValueError):
    """A bundle that must not be served; the message names the bundle, the check and what was found."""


class DeviceError(RuntimeError):
    """The device that was asked for cannot serve; the message names what was asked and what there is."""


def as_exception(error: BaseException) -> Exception:
    """The error itself, or one that says what it is: a panic in a library of Rust is no Exception."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
