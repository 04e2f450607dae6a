"""Tensors of the Open Inference Protocol as bytes, in the binary extension: exact, and without a copy on the way in.

Invariant: an array arrives with its dtype and shape, or TypeError says why it cannot be sent.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ekiben.client.values import Array, Tensors

DATATYPES = {
    "bool": "BOOL",
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}
LENGTH = struct.Struct("<I")
HEADER_LENGTH = "inference-header-content-length"


def write_request(inputs: Mapping[str, Any], outputs: Sequence[str] | None) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request and the headers that it needs."""
    entries, parts = [], []
    for name, value in inputs.items():
        datatype, content = _packed(name, value)
        entries.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(np.shape(value)),
                "parameters": {"binary_data_size": len(content)},
            }
        )
        parts.append(content)
    document: dict[str, Any] = {"inputs": entries, "parameters": {"binary_data_output": True}}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    head = json.dumps(document, separators=(",", ":")).encode()
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join((head, *parts)), headers


def read_response(body: bytes, head_length: int) -> Tensors:
    """Return the outputs; the arrays are read-only views of the body. Raises ValueError if bytes lack or are left."""
    document = json.loads(body[:head_length])
    outputs, at = {}, head_length
    for entry in document["outputs"]:
        size = entry["parameters"]["binary_data_size"]
        content = memoryview(body)[at : at + size]
        if len(content) != size:
            raise ValueError(f"output {entry['name']!r} has {len(content)} bytes instead of {size}")
        outputs[entry["name"]] = _unpacked(entry["datatype"], content, entry["shape"])
        at += size
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes follow the outputs")
    return Tensors(model=document["model_name"], version=document.get("model_version", ""), outputs=outputs)


def _packed(name: str, value: Any) -> tuple[str, bytes | memoryview]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"input {name!r}: expected a numpy array, got {type(value).__name__}")
    if value.dtype.kind in "OSU":
        return "BYTES", b"".join(_text(name, each) for each in value.reshape(-1).tolist())
    datatype = DATATYPES.get(value.dtype.name)
    if datatype is None:
        raise TypeError(f"input {name!r}: the protocol has no datatype for {value.dtype}")
    content = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return datatype, content.reshape(-1).view(np.uint8).data


def _text(name: str, text: Any) -> bytes:
    if not isinstance(text, str | bytes):
        raise TypeError(f"input {name!r}: expected texts or bytes, got {type(text).__name__}")
    content = text.encode() if isinstance(text, str) else text
    return LENGTH.pack(len(content)) + content


def _unpacked(datatype: str, content: memoryview, shape: Sequence[int]) -> Array:
    if datatype != "BYTES":
        return np.frombuffer(content, DTYPES[datatype].newbyteorder("<")).reshape(shape)
    texts, at = np.empty(math.prod(shape), object), 0
    for i in range(len(texts)):
        (length,) = LENGTH.unpack_from(content, at)
        texts[i] = bytes(content[at + 4 : at + 4 + length])
        at += 4 + length
    return texts.reshape(shape)
