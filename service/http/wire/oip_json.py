"""The JSON of an Open Inference Protocol request, with its tensors as arrays: no Python object for each number.

Invariant: what `read_tensors` returns is what `read_json` would, but that the flat lists of numbers of `inputs` are
arrays; whatever is unusual is left to `read_json`, and whatever is wrong is found there.
"""

from codecs import BOM_UTF8 as BOM
from typing import Any

import numpy as np
import simdjson

KINDS = {"UINT8": ("u", np.uint64), "INT64": ("i", np.int64), "FP32": ("d", np.float64)}
MIN_BYTES = 1 << 13  # below, orjson is as fast
MAX_BYTES = 1 << 20  # simdjson takes 14 times as much memory while it reads


def read_tensors(body: bytes) -> dict[str, Any] | None:
    """The document, or None if it is small or has anything but flat lists of numbers of the type that they announce."""
    if not MIN_BYTES <= len(body) <= MAX_BYTES or body.startswith(BOM):  # simdjson skips it, orjson refuses it
        return None
    try:
        document: Any = simdjson.Parser().parse(body)
        found = _plain(document, ("inputs",))
        found["inputs"] = inputs = []
        num_lists = 1
        for entry in document["inputs"]:
            tensor = _plain(entry, ("data",))
            code, dtype = KINDS[tensor["datatype"]]
            data = entry.get("data")
            if data is not None:
                tensor["data"] = np.frombuffer(data.as_buffer(of_type=code), dtype)
                num_lists += 1
            inputs.append(tensor)
            num_lists += type(tensor.get("shape")) is list
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):  # the last: nested too deep
        return None
    num_lists += type(found.get("outputs")) is list
    return found if body.count(b"[") == num_lists else None  # or lists are nested, which buffers do not show


def _plain(element: Any, but: tuple[str, ...]) -> dict[str, Any]:
    """An object as a dictionary, without what is at the keys `but`. Raises ValueError if a key is there twice."""
    keys = list(element.keys())
    if len(set(keys)) != len(keys):
        raise ValueError("a key is there twice")
    values = ((key, element[key]) for key in keys if key not in but)
    return {key: _python(value) for key, value in values}


def _python(value: Any) -> Any:
    match value:
        case simdjson.Object():
            return value.as_dict()
        case simdjson.Array():
            return value.as_list()
        case _:
            return value
