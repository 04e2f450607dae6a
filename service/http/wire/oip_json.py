"""Parse the JSON of an Open Inference Protocol request without a Python object for each number of a tensor.

Invariant: `parse_tensors` returns the document that `parse_json` would return, except that the flat lists of numbers in
`inputs` are arrays. It returns None for any unusual or invalid document, which the caller passes to `parse_json`.
"""

from codecs import BOM_UTF8
from typing import Any

import numpy as np
import simdjson

from service.http.wire.json_body import has_unique_names

# datatype -> (type of the simdjson buffer, type of the array)
BUFFER_TYPES = {
    **{f"UINT{bits}": ("u", np.uint64) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": ("i", np.int64) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": ("d", np.float64) for bits in (16, 32, 64)},
}
MIN_BYTES = 1 << 13  # for smaller bodies orjson is as fast
MAX_BYTES = 1 << 20  # simdjson needs 14 times the size of the body in memory


def parse_tensors(body: bytes) -> dict[str, Any] | None:
    """Return the document, or None unless the body has a suitable size and every `data` is flat, of its datatype."""
    # simdjson skips a byte order mark, which orjson refuses.
    if not MIN_BYTES <= len(body) <= MAX_BYTES or body.startswith(BOM_UTF8):
        return None
    try:
        parsed: Any = simdjson.Parser().parse(body)
        document = _to_dict(parsed, exclude="inputs")
        document["inputs"] = inputs = []
        num_lists = 1
        for entry in parsed["inputs"]:
            tensor = _to_dict(entry, exclude="data")
            code, dtype = BUFFER_TYPES[tensor["datatype"]]
            data = entry.get("data")
            if data is not None:
                tensor["data"] = np.frombuffer(data.as_buffer(of_type=code), dtype)
                num_lists += 1
            inputs.append(tensor)
            num_lists += type(tensor.get("shape")) is list
    # simdjson raises RuntimeError for a document that is nested too deep.
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        return None
    num_lists += type(document.get("outputs")) is list
    # A buffer does not show whether its list was nested; a nested list means more lists than were counted above.
    return document if body.count(b"[") == num_lists and has_unique_names(document, body) else None


def _to_dict(element: Any, *, exclude: str) -> dict[str, Any]:
    """Convert an object to a dictionary without the key `exclude`. Raises ValueError for a duplicate key."""
    keys = list(element.keys())
    if len(set(keys)) != len(keys):
        raise ValueError("duplicate key")
    return {key: _to_python(element[key]) for key in keys if key != exclude}


def _to_python(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value
