"""A ModelInfer request as the document and bytes that HTTP would carry, and its answer as a message.

Invariant: a request is read by the same code as one over HTTP, and an answer has the same bits. Answers hold their
numbers as raw bytes, whichever way those of the request came.
"""

from collections.abc import Mapping
from typing import Any

from service.grpc.messages import parse_message, read_parameters, write_message
from service.http.rollout.comparison import read_values
from service.http.wire.oip_tensors import BYTES, DATATYPE_OF, Array, pack_texts
from service.manifest import Manifest
from service.tasks.faults import fault

# Where the numbers of a datatype are; those of FP16 are always raw.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read_request(message: Any) -> tuple[dict[str, Any], bytes]:
    """Return the document of a request, and the bytes that follow it; raises EkibenError("invalid-request")."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise fault("/raw_input_contents", f"expected one for each of {len(message.inputs)} inputs, got {len(raw)}")
    document: dict[str, Any] = {
        "id": message.id or None,
        "parameters": {**read_parameters(message.parameters), "binary_data_output": True},
        "inputs": [_read_input(tensor, i, raw) for i, tensor in enumerate(message.inputs)],
    }
    if message.outputs:
        document["outputs"] = [
            {"name": output.name, "parameters": read_parameters(output.parameters)} for output in message.outputs
        ]
    return document, raw[0] if len(raw) == 1 else b"".join(raw)


def _read_input(tensor: Any, number: int, raw: Any) -> dict[str, Any]:
    parameters = read_parameters(tensor.parameters)
    entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "parameters": parameters}
    given = [field.name for field, _ in tensor.contents.ListFields()]
    if raw:
        if given:
            raise fault(f"/inputs/{number}/contents", "given twice: here and in raw_input_contents")
        parameters["binary_data_size"] = len(raw[number])
        return entry
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        expected = "raw_input_contents, as for every tensor of FP16" if tensor.datatype == "FP16" else "a datatype"
        raise fault(f"/inputs/{number}/datatype", f"expected {expected}, got {tensor.datatype[:40]!r}")
    if others := [name for name in given if name != field]:
        raise fault(
            f"/inputs/{number}/contents/{others[0]}", f"expected {field}, where {tensor.datatype} has its values"
        )
    values = list(getattr(tensor.contents, field))
    entry["data"] = _decode(values, f"/inputs/{number}/contents/{field}") if field == "bytes_contents" else values
    parameters.pop("binary_data_size", None)
    return entry


def _decode(contents: list[bytes], where: str) -> list[str]:
    texts = []
    for number, content in enumerate(contents):
        try:
            texts.append(content.decode())
        except UnicodeDecodeError as error:
            reason = f"text {number} is not UTF-8: {error.reason} at byte {error.start}"
            raise fault(where, reason) from None
    return texts


def read_answer(content: bytes) -> dict[str, Any]:
    """The content of a ModelInferResponse that is compared: its outputs with their numbers or texts."""
    message = parse_message("ModelInferResponse", content)
    tensors = zip(message.outputs, message.raw_output_contents, strict=True)
    outputs = [
        {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
            "data": read_values(output.datatype, raw),
        }
        for output, raw in tensors
    ]
    return {"outputs": outputs}


def write_response(manifest: Manifest, outputs: Mapping[str, Array], request_id: str | None) -> bytes:
    """Return the message ModelInferResponse."""
    return write_message(
        "ModelInferResponse",
        {
            "model_name": manifest.name,
            "model_version": manifest.version,
            "id": request_id or "",
            "outputs": [
                {"name": name, "datatype": DATATYPE_OF[value.dtype], "shape": value.shape}
                for name, value in outputs.items()
            ],
            "raw_output_contents": [
                pack_texts(value) if value.dtype == BYTES else value.tobytes() for value in outputs.values()
            ],
        },
    )
