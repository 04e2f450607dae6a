"""The wire formats of the peers: how a request is encoded and how a response is decoded.

`encode` makes the request for some items of a workload, `decode` reads the probabilities [rows, labels] from a
response. All formats carry the same content: rows go in, probabilities come out.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.workloads import Workload

Array = npt.NDArray[Any]
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}
V2 = {"uint8": "UINT8", "int64": "INT64"}


@dataclass(frozen=True, kw_only=True)
class EncodedRequest:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class WireFormat:
    """With `top`, a response holds only that many of the highest probabilities, in descending order."""

    encode: Callable[[Workload, slice], EncodedRequest]
    decode: Callable[[Mapping[str, str], bytes], Array]
    top: int | None = None


def _json(path: str, document: Any) -> EncodedRequest:
    return EncodedRequest(path=path, headers=JSON, body=json.dumps(document, separators=(",", ":")).encode())


def _pack_rows(workload: Workload, items: slice) -> Array:
    """Images unchanged; a text is one row with its length and its ids."""
    rows = workload.rows(items)
    return rows["images"] if "images" in rows else np.column_stack([rows["lengths"], rows["ids"]])


def _pack_bytes(rows: Mapping[str, Array]) -> bytes:
    if "images" in rows:
        return np.ascontiguousarray(rows["images"]).tobytes()
    return np.concatenate([[len(rows["ids"])], rows["lengths"], rows["ids"].ravel()]).tobytes()


def json_format(prefix: str = "/") -> WireFormat:
    """{"images": [...]} or {"ids": [...], "lengths": [...]} -> {"probabilities": [...]}."""
    return WireFormat(
        encode=lambda workload, items: _json(
            prefix + workload.model, {name: rows.tolist() for name, rows in workload.rows(items).items()}
        ),
        decode=lambda _, body: np.array(json.loads(body)["probabilities"]),
    )


def raw_format(prefix: str = "/") -> WireFormat:
    """The bytes of the images, or of the number of texts, their lengths and their ids -> float32 bytes."""
    return WireFormat(
        encode=lambda workload, items: EncodedRequest(
            path=prefix + workload.model, headers=BYTES, body=_pack_bytes(workload.rows(items))
        ),
        decode=lambda _, body: np.frombuffer(body, np.float32),
    )


def _encode_rows(workload: Workload, items: slice) -> EncodedRequest:
    return _json(f"/{workload.model}", {"rows": _pack_rows(workload, items).tolist()})


def _encode_instances(workload: Workload, items: slice) -> EncodedRequest:
    rows = workload.rows(items)
    if "images" in rows:
        instances = rows["images"].tolist()
    else:
        pairs = zip(rows["ids"].tolist(), rows["lengths"].tolist(), strict=True)
        instances = [{"ids": ids, "length": length} for ids, length in pairs]
    return _json(f"/v1/models/{workload.model}:predict", {"instances": instances})


def _v2_inputs(workload: Workload, items: slice, *, columns: bool) -> dict[str, Array]:
    """With `columns`, lengths have the shape [rows, 1], for servers that require a second axis after the batch axis."""
    return {name: rows[:, None] if columns and rows.ndim == 1 else rows for name, rows in workload.rows(items).items()}


def v2_json(*, columns: bool = False) -> WireFormat:
    """Open Inference Protocol v2, tensors as flat JSON lists."""

    def encode(workload: Workload, items: slice) -> EncodedRequest:
        inputs = [
            {"name": name, "shape": rows.shape, "datatype": V2[rows.dtype.name], "data": rows.ravel().tolist()}
            for name, rows in _v2_inputs(workload, items, columns=columns).items()
        ]
        document = {"inputs": inputs, "outputs": [{"name": "probabilities"}]}
        return _json(f"/v2/models/{workload.model}/infer", document)

    def decode(_headers: Mapping[str, str], body: bytes) -> Array:
        (output,) = json.loads(body)["outputs"]
        return np.array(output["data"]).reshape(output["shape"])

    return WireFormat(encode=encode, decode=decode)


def v2_binary(*, columns: bool = False) -> WireFormat:
    """Open Inference Protocol v2 with its binary tensor extension, in both directions."""

    def encode(workload: Workload, items: slice) -> EncodedRequest:
        tensors = _v2_inputs(workload, items, columns=columns)
        inputs = [
            {
                "name": name,
                "shape": rows.shape,
                "datatype": V2[rows.dtype.name],
                "parameters": {"binary_data_size": rows.nbytes},
            }
            for name, rows in tensors.items()
        ]
        outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
        return EncodedRequest(
            path=f"/v2/models/{workload.model}/infer",
            headers={**BYTES, "Inference-Header-Content-Length": str(len(head))},
            body=head + b"".join(np.ascontiguousarray(rows).tobytes() for rows in tensors.values()),
        )

    def decode(headers: Mapping[str, str], body: bytes) -> Array:
        head = int(headers["inference-header-content-length"])
        (output,) = json.loads(body[:head])["outputs"]
        return np.frombuffer(body[head:], np.float32).reshape(output["shape"])

    return WireFormat(encode=encode, decode=decode)


def _encode_native(workload: Workload, items: slice) -> EncodedRequest:
    """Ekiben's native endpoints: pixels to /classify, texts (tokenised by the service) to /sequence-predict."""
    if "images" in workload.inputs:
        return _json("/classify", {"model": workload.model, "images": workload.inputs["images"][items].tolist()})
    return _json("/sequence-predict", {"model": workload.model, "texts": workload.texts[items]})


def _decode_native(_headers: Mapping[str, str], body: bytes) -> Array:
    predictions = json.loads(body)["predictions"]
    return np.array([[entry["probability"] for entry in prediction["top"]] for prediction in predictions])


FORMATS: dict[str, WireFormat] = {
    "json": json_format(),
    "raw": raw_format(),
    "raw-route": raw_format("/raw/"),
    "rows": WireFormat(encode=_encode_rows, decode=lambda _, body: np.array(json.loads(body))),
    "v1": WireFormat(encode=_encode_instances, decode=lambda _, body: np.array(json.loads(body)["predictions"])),
    "torchserve": json_format("/predictions/"),
    "torchserve-raw": raw_format("/predictions/"),
    "v2-json": v2_json(),
    "v2-binary": v2_binary(),
    "v2-json-columns": v2_json(columns=True),
    "v2-binary-columns": v2_binary(columns=True),
    "ekiben": WireFormat(encode=_encode_native, decode=_decode_native, top=3),
}
