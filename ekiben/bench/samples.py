"""The requests of a load: items of a model of the Open Inference Protocol, from a file or made from its metadata."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

Array = npt.NDArray[Any]
# The datatypes of the protocol that have a type of numpy; BYTES has none.
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
NAMES = {np.dtype(name): datatype for datatype, name in DATATYPES.items()}
NUM_MADE = 64
# The size of an axis that the metadata leaves open.
OPEN_AXIS = 8


class SampleError(Exception):
    """The model or the file of items cannot be used; the message is for the user."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Requests of one item each. `targets` are the labels that `label_of` finds in an answer if the model is right."""

    requests: Sequence[bytes]
    targets: Array | None = None
    label_of: Callable[[Mapping[bytes, bytes], bytes], int] = field(default=lambda _headers, _body: -1)


def load_samples(
    url: str, model: str, *, data: Path | None = None, output: str | None = None, headers: Mapping[str, str]
) -> Samples:
    """The items of the tensors inputs/NAME and targets of a safetensors file; without one, seeded numbers.

    `output` is the tensor whose highest value is the label; by default the first floating-point output.
    """
    metadata = _get(f"{url}/v2/models/{model}", headers)
    names = {spec["name"] for spec in metadata["outputs"]}
    output = output or _scores_output(metadata)
    if output is not None and output not in names:
        raise SampleError(f"--output: {model} has no output {output!r}; it has {', '.join(sorted(names))}")
    targets = None
    if data is None:
        rows = _made(metadata)
    else:
        rows, targets = _read(data, metadata)
    count = len(next(iter(rows.values())))
    requests = [
        encode(url, model, {name: values[i : i + 1] for name, values in rows.items()}, output, headers)
        for i in range(count)
    ]
    return Samples(requests=requests, targets=targets, label_of=_label)


def encode(url: str, model: str, inputs: Mapping[str, Array], output: str | None, headers: Mapping[str, str]) -> bytes:
    """An inference request of the protocol with its binary extension, as the bytes of an HTTP request."""
    tensors, parts = [], []
    for name, values in inputs.items():
        content = values.tobytes() if values.dtype.kind != "S" else _pack_texts(values)
        datatype = "BYTES" if values.dtype.kind == "S" else NAMES[values.dtype]
        shape, size = list(values.shape), {"binary_data_size": len(content)}
        tensors.append({"name": name, "shape": shape, "datatype": datatype, "parameters": size})
        parts.append(content)
    document: dict[str, Any] = {"inputs": tensors}
    if output is not None:
        document["outputs"] = [{"name": output, "parameters": {"binary_data": True}}]
    head = json.dumps(document, separators=(",", ":")).encode()
    more = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head)), **headers}
    return http_request(url, f"/v2/models/{model}/infer", more, head + b"".join(parts))


def http_request(url: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


def _get(address: str, headers: Mapping[str, str]) -> Any:
    try:
        request = urllib.request.Request(address, headers=dict(headers))  # noqa: S310 - --url, which is checked
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise SampleError(f"{address}: status {error.code}: {error.read().decode(errors='replace'):.300}") from error
    except (OSError, ValueError) as error:
        raise SampleError(f"{address}: {getattr(error, 'reason', error)}") from error


def _scores_output(metadata: Mapping[str, Any]) -> str | None:
    return next((spec["name"] for spec in metadata["outputs"] if spec["datatype"].startswith("FP")), None)


def _made(metadata: Mapping[str, Any]) -> dict[str, Array]:
    """Seeded items: noise in floating point and bytes, ones as other integers, short texts."""
    rng = np.random.default_rng(0)
    rows: dict[str, Array] = {}
    for spec in metadata["inputs"]:
        shape = (NUM_MADE, *(OPEN_AXIS if size < 0 else size for size in spec["shape"][1:]))
        datatype = spec["datatype"]
        if datatype == "BYTES":
            rows[spec["name"]] = np.full(shape, b"A short text of six words.")
        elif datatype.startswith("FP"):
            rows[spec["name"]] = rng.normal(size=shape).astype(DATATYPES[datatype])
        elif datatype in {"UINT8", "INT8"}:
            rows[spec["name"]] = rng.integers(0, 128, shape).astype(DATATYPES[datatype])
        else:
            rows[spec["name"]] = np.ones(shape, DATATYPES[datatype])
    return rows


def _read(data: Path, metadata: Mapping[str, Any]) -> tuple[dict[str, Array], Array | None]:
    try:
        tensors = load_file(data)
    except (OSError, SafetensorError) as error:
        raise SampleError(f"--data {data}: {error}") from error
    rows = {}
    for spec in metadata["inputs"]:
        name = f"inputs/{spec['name']}"
        if name not in tensors:
            raise SampleError(f"--data {data}: there is no tensor {name}; the file has {', '.join(sorted(tensors))}")
        rows[spec["name"]] = np.ascontiguousarray(tensors[name])
    counts = {len(values) for values in (*rows.values(), *([tensors["targets"]] if "targets" in tensors else []))}
    if len(counts) != 1 or 0 in counts:
        raise SampleError(f"--data {data}: the tensors have {', '.join(map(str, sorted(counts)))} items")
    return rows, tensors.get("targets")


def _label(headers: Mapping[bytes, bytes], body: bytes) -> int:
    """The place of the highest score in an answer with one item."""
    length = headers.get(b"inference-header-content-length")
    if length is None:
        (output,) = json.loads(body)["outputs"]
        return int(np.argmax(output["data"]))
    (output,) = json.loads(body[: int(length)])["outputs"]
    return int(np.argmax(np.frombuffer(body[int(length) :], DATATYPES[output["datatype"]])))


def _pack_texts(values: Array) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in values.ravel().tolist())
