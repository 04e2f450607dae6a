"""The requests of the soak, the response expected of each version, and second versions of bundles with other weights.

The requests are the request cases of the bundles, their images as uploads, and the golden inputs as tensors, in JSON
and as bytes. The expected responses are computed in this process, with the session and the task code of each version.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from onnx import numpy_helper
from safetensors.numpy import save

from benchmarks.connection import Response
from service.bundle import Bundle, GoldenCase, Tensors, current_version, open_bundle, pack_golden
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.engine.verification.golden_inputs import complete_inputs
from service.manifest import GOLDEN, MANIFEST, MODEL, REQUESTS, Manifest
from service.tasks.model_lookup import ENDPOINTS
from service.tasks.replay import answer_request_sync
from service.tasks.tensors import clear_padding

DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
WEIGHT_SCALE = np.float32(1.02)  # of a second version
Expected = dict[str, Any]  # version -> content of the response


@dataclass(frozen=True, kw_only=True)
class Case:
    """`parse` returns the version and the content of a response; `expected` has the correct content of each version."""

    kind: str
    path: str
    body: bytes
    headers: dict[str, str]
    parse: Callable[[Response], tuple[str, Any]]
    expected: Expected

    def matching_version(self, response: Response) -> str | None:
        """The version that the response names, or None if the response is not the expected one of that version."""
        if response.status != 200:
            return None
        version, content = self.parse(response)
        return version if version in self.expected and content == self.expected[version] else None


def set_current(root: Path, name: str, version: str) -> None:
    """Write the version into the model's file `current`, atomically."""
    temporary = root / name / ".current"
    temporary.write_text(version + "\n")
    temporary.replace(root / name / "current")


def add_version(root: Path, name: str) -> tuple[str, str]:
    """Write a second, valid version beside the current one; return both."""
    first = current_version(root / name)
    bundle = open_bundle(root / name / first)
    graph = onnx.load_from_string(bundle.model)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * WEIGHT_SCALE, tensor.name))
    content: bytes = graph.SerializeToString(deterministic=True)
    model = _model(bundle, content)
    golden = tuple(
        GoldenCase(
            inputs=case.inputs,
            outputs=model.session.run(complete_inputs(model.session, case.inputs), list(case.outputs)),
        )
        for case in bundle.golden
    )
    cases = [{"request": case.request, "answer": answer_request_sync(model, case.request)} for case in bundle.requests]
    lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    return first, _write_version(
        root, bundle, {MODEL: content, GOLDEN: save(pack_golden(golden)), REQUESTS: lines.encode()}
    )


def add_broken_version(root: Path, name: str) -> str:
    """Write a version whose graph differs from its manifest in one byte."""
    folder = root / name / current_version(root / name)
    changed = (folder / REQUESTS).read_bytes() + b" "
    version = _write_version(root, open_bundle(folder), {REQUESTS: changed})
    content = bytearray((root / name / version / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (root / name / version / MODEL).write_bytes(content)
    return version


def make_cases(root: Path, name: str, versions: tuple[str, ...]) -> list[Case]:
    """The cases of a model, with the responses expected of these versions."""
    bundles = [open_bundle(root / name / version) for version in versions]
    models = [_model(bundle, bundle.model) for bundle in bundles]
    first = bundles[0]
    cases = []
    for case in first.requests:
        cases.append(_json_case(case.request, models))
        if first.manifest.task == "classify" and isinstance(case.request["images"][0], str):
            cases.append(_upload_case(case.request["images"][0], models))
    for golden in first.golden:
        shape = golden.inputs["ids"].shape if "ids" in golden.inputs else (1, 1)
        # The caches of a prompt that a case leaves to the service to read would be megabytes.
        is_complete = len(golden.inputs) == len(first.manifest.inputs)
        if is_complete and (first.manifest.head.kind != "language-model" or 1 in shape):
            cases += [_tensor_case(golden.inputs, models, as_bytes=as_bytes) for as_bytes in (False, True)]
    return cases


def _write_version(root: Path, bundle: Bundle, files: dict[str, bytes]) -> str:
    """Write a copy of the bundle with these files replaced and a new manifest; return its version."""
    fields = bundle.manifest.model_dump(mode="json", exclude={"version"})
    for file, content in files.items():
        fields["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = Manifest.versioned(**fields)
    source = root / bundle.manifest.name / bundle.manifest.version
    folder = root / manifest.name / manifest.version
    shutil.copytree(source, folder)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest.version


def _model(bundle: Bundle, content: bytes) -> Model:
    session = Session(content, manifest=bundle.manifest, device="cpu")
    return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def _json_case(request: dict[str, Any], models: list[Model]) -> Case:
    return Case(
        kind=f"{ENDPOINTS[models[0].manifest.task]} JSON",
        path=ENDPOINTS[models[0].manifest.task],
        body=json.dumps(request).encode(),
        headers={"content-type": "application/json"},
        parse=_parse_json,
        expected={model.manifest.version: _without_version(answer_request_sync(model, request)) for model in models},
    )


def _upload_case(image: str, models: list[Model]) -> Case:
    name = models[0].manifest.name
    request = {"model": name, "images": [image], "top_k": 2}
    return Case(
        kind="/classify upload",
        path=f"/classify?model={name}&top_k=2",
        body=base64.b64decode(image),
        headers={"content-type": "image/jpeg" if image.startswith("/9j/") else "image/png"},
        parse=_parse_json,
        expected={model.manifest.version: _without_version(answer_request_sync(model, request)) for model in models},
    )


def _parse_json(response: Response) -> tuple[str, Any]:
    document = orjson.loads(response.body)
    return document["version"], _without_version(document)


def _without_version(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "version"}


def _tensor_case(inputs: Tensors, models: list[Model], *, as_bytes: bool) -> Case:
    manifest = models[0].manifest
    entries, raw = [], b""
    for name, value in inputs.items():
        entry: dict[str, Any] = {"name": name, "shape": value.shape, "datatype": DATATYPES[value.dtype.name]}
        if as_bytes:
            raw += value.tobytes()
            entry["parameters"] = {"binary_data_size": value.nbytes}
        else:
            entry["data"] = np.ascontiguousarray(value).ravel()
        entries.append(entry)
    document = {"inputs": entries, "parameters": {"binary_data_output": as_bytes}}
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Case(
        kind=f"OIP {'bytes' if as_bytes else 'JSON'}",
        path=f"/v2/models/{manifest.name}/infer",
        body=head + raw,
        headers={"inference-header-content-length": str(len(head))} if as_bytes else {},
        parse=lambda response: _parse_tensors(response, manifest),
        expected={model.manifest.version: _outputs(model, inputs) for model in models},
    )


def _outputs(model: Model, inputs: Tensors) -> list[bytes]:
    outputs = model.session.run(inputs)
    clear_padding(outputs, inputs, model.manifest)
    return [value.tobytes() for value in outputs.values()]


def _parse_tensors(response: Response, manifest: Manifest) -> tuple[str, list[bytes]]:
    size = int(response.headers.get("inference-header-content-length", len(response.body)))
    head, tensors = orjson.loads(response.body[:size]), []
    for entry, spec in zip(head["outputs"], manifest.outputs, strict=True):
        if "data" in entry:
            tensors.append(np.asarray(entry["data"], spec.dtype).tobytes())
        else:
            end = size + entry["parameters"]["binary_data_size"]
            tensors.append(response.body[size:end])
            size = end
    return head["model_version"], tensors
