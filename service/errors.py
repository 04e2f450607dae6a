"""The domain errors of the service.

A domain error holds a slug, a sentence for people and the places in the request that it concerns. It knows nothing of
HTTP: one table in `service.http` maps each slug to a status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Slug = Literal[
    # The message is broken, or too large, or its body cannot be parsed.
    "malformed-message",
    "target-too-long",
    "head-too-large",
    "malformed-json",
    "unsupported-media-type",
    "body-too-large",
    # The body was parsed, but a field or an item is invalid.
    "invalid-request",
    "unknown-model",
    "unknown-route",
    "method-not-allowed",
    # The client may not do this: without a key, with one of too little scope, at another host's name, or too often.
    "unauthorized",
    "forbidden",
    "misdirected",
    "rate-limited",
    # The model exists, but serves another task.
    "wrong-task",
    "not-ready",
    "overloaded",
    "timeout",
    # The model computed NaN or infinity for an item.
    "not-finite",
    "internal",
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One invalid place in a request: a JSON Pointer (RFC 6901) into its body, such as `/images/3`, and the reason."""

    pointer: str
    detail: str


class EkibenError(Exception):
    """An error for the client: a slug, a sentence, and a fault for each field or item that it concerns.

    `retry_after_s` is the time in seconds after which the same request should succeed, or None if it is unknown.
    """

    def __init__(
        self, slug: Slug, detail: str, faults: tuple[Fault, ...] = (), *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.slug: Slug = slug
        self.detail = detail
        self.faults = faults
        self.retry_after_s = retry_after_s


def not_finite(model: str, outputs: Mapping[int, str], pointers: Sequence[str]) -> EkibenError:
    """Return the error of a request for some items of which an output of the model is NaN or infinite.

    `outputs` maps the index of each such item to the name of the output; every item of the request has a pointer.
    """
    names, items = sorted({repr(name) for name in outputs.values()}), sorted(outputs)
    listed = ", ".join(map(str, items))
    detail = f"{', '.join(names)} is not finite for {len(items)} of {len(pointers)} items: {listed}"
    faults = [Fault(pointer=pointers[item], detail=not_finite_item(outputs[item])) for item in items]
    return EkibenError("not-finite", f"{model}: the model's output {detail}", tuple(faults))


def not_finite_item(output: str) -> str:
    """Return the sentence for one item for which this output of the model is NaN or infinite."""
    return f"the model's output {output!r} is not finite for this item"


def shutting_down() -> EkibenError:
    """The service ends; another worker may answer."""
    return EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)


def deadline_passed() -> EkibenError:
    """The deadline of a request has passed."""
    return EkibenError("timeout", "no answer before the deadline")


def lacks_memory(version: str) -> EkibenError:
    """A run of this version of a model was refused memory, which passes."""
    return EkibenError("overloaded", f"{version}: the service lacks memory now", retry_after_s=1.0)


class BundleError(ValueError):
    """A bundle that must not be served; the message names the bundle, the check and the finding."""


class DeviceError(RuntimeError):
    """The requested device is not available; the message names the requested and the available devices."""


def as_exception(error: BaseException) -> Exception:
    """Return the error, or a RuntimeError that names it if it is not an Exception, such as a Rust library's panic."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def forget_traceback(error: BaseException | None) -> None:
    """Drop the tracebacks of an error that was answered, and of the errors before it.

    They hold frames whose variables lead back to the error, so a request and its body would stay in memory until the
    garbage collector looks at them.
    """
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__context__
