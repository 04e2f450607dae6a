"""What a call raises: one class for each way in which a program reacts.

A `ServiceError` is an answer of the service, with the slug and the faults of its problem document (RFC 9457).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

ITEM = re.compile(r"(/[a-z]+/)(\d+)(.*)", re.DOTALL)
MAX_CHARS = 300  # of an answer that is no problem document


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One invalid place in a request: a JSON Pointer (RFC 6901) such as `/images/3`, and the reason."""

    pointer: str
    detail: str


class EkibenClientError(Exception):
    """Any failure of a call."""


class ConnectionFailedError(EkibenClientError):
    """The service could not be reached, or the connection broke, and no retry helped."""


class ServiceError(EkibenClientError):
    """The service answered with an error."""

    def __init__(
        self, *, slug: str, status: int, detail: str, faults: tuple[Fault, ...] = (), request_id: str | None = None
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.status = status
        self.detail = detail
        self.faults = faults
        self.request_id = request_id

    def __str__(self) -> str:
        places = "".join(f"; {fault.pointer}: {fault.detail}" for fault in self.faults if not self._tells(fault))
        return f"{self.status} {self.slug}: {self.detail}{places}"

    def _tells(self, fault: Fault) -> bool:
        """Whether the detail holds the fault; that of an item names its place in the request, not in the whole."""
        if fault.pointer in self.detail:
            return True
        return ITEM.fullmatch(fault.pointer) is None and f": {self.detail}".endswith(f": {fault.detail}")

    def shifted(self, first_item: int) -> Self:
        """Return the error of a request whose item 0 is item `first_item` of the whole."""
        return type(self)(
            slug=self.slug,
            status=self.status,
            detail=self.detail,
            faults=tuple(_shifted(fault, first_item) for fault in self.faults),
            request_id=self.request_id,
        )


class InvalidRequestError(ServiceError):
    """The request is wrong, and would be wrong again; `faults` says where."""


class NotFoundError(InvalidRequestError):
    """There is no such model or route."""


class PermissionDeniedError(ServiceError):
    """The key is absent, unknown, or of too little scope."""


class UnavailableError(ServiceError):
    """The service is overloaded, not ready, or limits the rate; `retry_after_s` is when it asked to come back."""

    retry_after_s: float | None = None


class DeadlineError(EkibenClientError):
    """No answer within the time of the call."""


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> EkibenClientError:
    """Return the error that an answer of status 300 and above stands for."""
    return problem_error(status, _document(body), headers.get("x-request-id"))


def problem_error(status: int, document: Mapping[str, Any], request_id: str | None) -> EkibenClientError:
    slug, detail = str(document.get("code", "unknown")), str(document.get("detail", ""))
    if slug == "timeout":
        return DeadlineError(detail)
    kind = ServiceError
    if status in (401, 403):
        kind = PermissionDeniedError
    elif status == 404:
        kind = NotFoundError
    elif status in (429, 503):
        kind = UnavailableError
    elif 400 <= status < 500:
        kind = InvalidRequestError
    faults = tuple(Fault(pointer=each["pointer"], detail=each["detail"]) for each in document.get("errors", ()))
    return kind(slug=slug, status=status, detail=detail, faults=faults, request_id=request_id)


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("detail"), str):
        return document
    return {"detail": body[:MAX_CHARS].decode(errors="replace")}


def _shifted(fault: Fault, first_item: int) -> Fault:
    found = ITEM.fullmatch(fault.pointer)
    if found is None:
        return fault
    return replace(fault, pointer=f"{found[1]}{int(found[2]) + first_item}{found[3]}")
