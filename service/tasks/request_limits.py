"""Checks the number of items of a request and the fields that its model accepts."""

from collections.abc import Iterable, Sequence
from typing import Any

from service.errors import Fault
from service.manifest import Manifest
from service.tasks.faults import invalid_request, type_fault


def check_items(items: Sequence[Any], manifest: Manifest, pointer: str) -> None:
    """Raise EkibenError unless there are 1 to `limits.max_items` items."""
    if not 1 <= len(items) <= manifest.limits.max_items:
        raise type_fault(pointer, f"1 to {manifest.limits.max_items} items", list(items))


def check_unused_fields(fields: Iterable[str], given: set[str], manifest: Manifest, accepted: str) -> None:
    """Raise EkibenError if the request gives `fields` that this model does not use; `accepted` names those it uses."""
    unused = [field for field in fields if field in given]
    if unused:
        detail = f"not a field for {manifest.name}, which takes {accepted}"
        raise invalid_request([Fault(pointer=f"/{field}", detail=detail) for field in unused])
