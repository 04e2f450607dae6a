"""What the soak asks, what each version answers to it, and second versions of bundles, with weights of their own.

Requests are the bundles' own request cases, pictures as uploads, and golden inputs as tensors, in JSON and as bytes. An
answer is known before it is asked for: from the version's session and task code alone in this process.
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

from benchmarks.connection import Answer
from service.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    REQUESTS,
    Bundle,
    GoldenCase,
    Manifest,
    Tensors,
    current_version,
    open_bundle,
    pack_golden,
)
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.tasks.limits import ENDPOINTS
from service.tasks.replay import answer_now
from service.tasks.tensors import clear_padding

DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
GROWTH = np.float32(1.02)  # of the weights of a second version
Answers = dict[str, Any]  # version -> what it answers


@dataclass(frozen=True, kw_only=True)
class Case:
    """`read` gives the version of an answer and what it says."""

    kind: str
    path: str
    body: bytes
    headers: dict[str, str]
    read: Callable[[Answer], tuple[str, Any]]
    answers: Answers

    def maker(self, answer: Answer) -> str | None:
        """The version that made the answer, if it is right."""
        if answer.status != 200:
            return None
        version, said = self.read(answer)
        return version if version in self.answers and said == self.answers[version] else None


def put(root: Path, name: str, version: str) -> None:
    """Let `current` name this version."""
    draft = root / name / ".current"
    draft.write_text(version + "\n")
    draft.replace(root / name / "current")


def add_version(root: Path, name: str) -> tuple[str, str]:
    """Write a second version, right in itself, beside the current one; returns both."""
    first = current_version(root / name)
    bundle = open_bundle(root / name / first)
    graph = onnx.load_from_string(bundle.model)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * GROWTH, tensor.name))
    content: bytes = graph.SerializeToString(deterministic=True)
    model = _model(bundle, content)
    golden = [
        GoldenCase(inputs=case.inputs, outputs=model.session.run(case.inputs, list(case.outputs)))
        for case in bundle.golden
    ]
    cases = [{"request": case.request, "answer": answer_now(model, case.request)} for case in bundle.requests]
    lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    return first, _write(root, bundle, {MODEL: content, GOLDEN: save(pack_golden(golden)), REQUESTS: lines.encode()})


def add_broken(root: Path, name: str) -> str:
    """A version whose graph has one byte that is not what its manifest says."""
    bundle = open_bundle(root / name / current_version(root / name))
    version = _write(root, bundle, {REQUESTS: (bundle.folder / REQUESTS).read_bytes() + b" "})
    content = bytearray((root / name / version / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (root / name / version / MODEL).write_bytes(content)
    return version


def cases_of(root: Path, name: str, versions: tuple[str, ...]) -> list[Case]:
    """What a model is asked, with the answers of these versions."""
    bundles = [open_bundle(root / name / version) for version in versions]
    models = [_model(bundle, bundle.model) for bundle in bundles]
    first = bundles[0]
    cases = []
    for case in first.requests:
        cases.append(_native(case.request, models))
        if first.manifest.task == "classify" and isinstance(case.request["images"][0], str):
            cases.append(_upload(case.request["images"][0], models))
    for golden in first.golden:
        shape = golden.inputs["ids"].shape if "ids" in golden.inputs else (1, 1)
        if first.manifest.parameters.family != "language-model" or 1 in shape:
            cases += [_tensors(golden.inputs, models, as_bytes=as_bytes) for as_bytes in (False, True)]
    return cases


def _write(root: Path, bundle: Bundle, changed: dict[str, bytes]) -> str:
    """The bundle with these files changed, sealed anew."""
    fields = bundle.manifest.model_dump(mode="json", exclude={"version"})
    for file, content in changed.items():
        fields["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = Manifest.sealed(**fields)
    folder = root / manifest.name / manifest.version
    shutil.copytree(bundle.folder, folder)
    for file, content in changed.items():
        (folder / file).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest.version


def _model(bundle: Bundle, content: bytes) -> Model:
    session = Session(content, manifest=bundle.manifest, device="cpu")
    return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def _native(request: dict[str, Any], models: list[Model]) -> Case:
    return Case(
        kind=f"{ENDPOINTS[models[0].manifest.task]} JSON",
        path=ENDPOINTS[models[0].manifest.task],
        body=json.dumps(request).encode(),
        headers={"content-type": "application/json"},
        read=_read_native,
        answers={model.manifest.version: _document(answer_now(model, request)) for model in models},
    )


def _upload(picture: str, models: list[Model]) -> Case:
    name = models[0].manifest.name
    request = {"model": name, "images": [picture], "top_k": 2}
    return Case(
        kind="/classify upload",
        path=f"/classify?model={name}&top_k=2",
        body=base64.b64decode(picture),
        headers={"content-type": "image/jpeg" if picture.startswith("/9j/") else "image/png"},
        read=_read_native,
        answers={model.manifest.version: _document(answer_now(model, request)) for model in models},
    )


def _read_native(answer: Answer) -> tuple[str, Any]:
    document = orjson.loads(answer.body)
    return document["version"], _document(document)


def _document(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "version"}


def _tensors(inputs: Tensors, models: list[Model], *, as_bytes: bool) -> Case:
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
        read=lambda answer: _read_tensors(answer, manifest),
        answers={model.manifest.version: _outputs(model, inputs) for model in models},
    )


def _outputs(model: Model, inputs: Tensors) -> list[bytes]:
    outputs = model.session.run(inputs)
    clear_padding(outputs, inputs, model.manifest)
    return [value.tobytes() for value in outputs.values()]


def _read_tensors(answer: Answer, manifest: Manifest) -> tuple[str, list[bytes]]:
    size = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    head, found = orjson.loads(answer.body[:size]), []
    for entry, spec in zip(head["outputs"], manifest.outputs, strict=True):
        if "data" in entry:
            found.append(np.asarray(entry["data"], spec.dtype).tobytes())
        else:
            end = size + entry["parameters"]["binary_data_size"]
            found.append(answer.body[size:end])
            size = end
    return head["model_version"], found
