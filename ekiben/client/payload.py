"""Request bodies: JSON with arrays as lists, and pictures as base64.

A picture is bytes of a PNG or JPEG, a path of one, an image of Pillow (which is saved as PNG), an array of pixels, or
what the service takes: base64 or lists of pixels.
"""

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Return the JSON of the fields; raises TypeError or ValueError for what JSON cannot hold, such as NaN."""
    return json.dumps(fields, default=_to_json, allow_nan=False, separators=(",", ":")).encode()


def picture(item: Any) -> Any:
    """Return the item as the service takes it."""
    if isinstance(item, str | list):
        return item
    if isinstance(item, Path):
        item = item.read_bytes()
    elif hasattr(item, "save") and hasattr(item, "mode"):
        buffer = BytesIO()
        item.save(buffer, "PNG")
        item = buffer.getvalue()
    if isinstance(item, bytes | bytearray | memoryview):
        return base64.b64encode(item).decode()
    return item


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"expected what JSON can hold, got {type(value).__name__}")
