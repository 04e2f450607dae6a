"""The bundle: what training and export hand to the service, owned by its reader.

A bundle is a folder `bundles/NAME/VERSION/` that is complete, immutable and content-addressed: VERSION is derived from
the manifest, and the manifest holds the hash of every other file. `open_bundle` returns only what passed every check,
and the bytes it returns are the bytes that were hashed.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from service.errors import BundleError
from service.manifest import (
    CARD,
    GOLDEN,
    MANIFEST,
    MODEL,
    REQUESTS,
    TASKS,
    TOKENIZER,
    File,
    Image,
    ImageClassifier,
    ImageGenerator,
    Invariance,
    LanguageModel,
    Limits,
    Manifest,
    Parameters,
    Provenance,
    SeriesClassifier,
    SeriesTagger,
    Task,
    TensorSpec,
    TextClassifier,
    Tolerance,
)
from service.onnx_wire import check_model

__all__ = [
    "CARD",
    "GOLDEN",
    "MANIFEST",
    "MODEL",
    "REQUESTS",
    "TASKS",
    "TOKENIZER",
    "Bundle",
    "File",
    "GoldenCase",
    "Image",
    "ImageClassifier",
    "ImageGenerator",
    "Invariance",
    "LanguageModel",
    "Limits",
    "Manifest",
    "Parameters",
    "Provenance",
    "RequestCase",
    "SeriesClassifier",
    "SeriesTagger",
    "Task",
    "TensorSpec",
    "Tensors",
    "TextClassifier",
    "Tolerance",
    "current_version",
    "first_fault",
    "open_bundle",
    "pack_golden",
]

MAX_MANIFEST_BYTES = 1 << 20
MAX_CURRENT_BYTES = 100

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """Inputs for every graph input; expected values for those outputs that the PyTorch model defines."""

    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True, kw_only=True)
class RequestCase:
    """A request body as a client sends it and the answer it must get (numbers within the tolerance)."""

    request: dict[str, Any]
    answer: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that passed every check."""

    folder: Path
    manifest: Manifest
    model: bytes
    golden: tuple[GoldenCase, ...]
    requests: tuple[RequestCase, ...]
    tokenizer: str | None


def current_version(folder: Path) -> str:
    """The version that `bundles/NAME/current` names."""
    try:
        content = _read_at_once(folder / "current", max_bytes=MAX_CURRENT_BYTES)
        version = content.decode().strip()
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: no file `current` in {folder}; export the model first") from None
    except _UnfitError as error:
        raise BundleError(f"{folder.name}: `current` {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder.name}: cannot read `current`: {error}") from error
    if not re.fullmatch("[0-9a-f]{12}", version):
        raise BundleError(f"{folder.name}: `current` says {version[:40]!r}, expected a version of 12 hex digits")
    return version


def open_bundle(folder: Path) -> Bundle:
    """Read `bundles/NAME/VERSION` and check it: manifest, paths, sizes and hashes, operators, then the cases.

    Raises BundleError that names the bundle, the check and what was found.
    """
    where = f"{folder.parent.name}/{folder.name}"
    manifest = _read_manifest(folder, where)
    contents = {name: _read_file(folder, where, name, file) for name, file in manifest.files.items()}
    try:
        check_model(contents[MODEL], opset=manifest.provenance.opset)
    except ValueError as error:
        raise BundleError(f"{where}: {MODEL}: {error}") from error
    try:
        tokenizer = contents[TOKENIZER].decode() if TOKENIZER in contents else None
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: {TOKENIZER}: {error}") from error
    return Bundle(
        folder=folder,
        manifest=manifest,
        model=contents[MODEL],
        golden=_read_golden(contents[GOLDEN], manifest, where),
        requests=_read_requests(contents[REQUESTS], where),
        tokenizer=tokenizer,
    )


def first_fault(error: ValidationError) -> str:
    """The first field that a manifest's validation objects to, and why, as one line."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"field {field!r}: {first['msg']}"


def _read_manifest(folder: Path, where: str) -> Manifest:
    content = _read_plain(folder, where, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{where}: {MANIFEST}: {first_fault(error)}") from error
    if manifest.content_version() != manifest.version:
        raise BundleError(
            f"{where}: {MANIFEST} was changed: its content has version {manifest.content_version()}, "
            f"it says {manifest.version}"
        )
    if folder.name != manifest.version or folder.parent.name != manifest.name:
        raise BundleError(f"{where}: {MANIFEST} is of {manifest.name}/{manifest.version}")
    return manifest


def _read_file(folder: Path, where: str, name: str, file: File) -> bytes:
    content = _read_plain(folder, where, name, max_bytes=file.bytes)
    if len(content) != file.bytes:
        raise BundleError(f"{where}: {name} has {len(content)} bytes, the manifest says {file.bytes}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise BundleError(f"{where}: {name} has sha256 {digest[:12]}…, the manifest says {file.sha256[:12]}…")
    return content


def _read_plain(folder: Path, where: str, name: str, *, max_bytes: int) -> bytes:
    try:
        if (folder / name).is_symlink():
            raise BundleError(f"{where}: {name} is not a plain file")
        return _read_at_once(folder / name, max_bytes=max_bytes)
    except OSError as error:
        raise BundleError(f"{where}: cannot read {name}: {error.strerror}") from error
    except _UnfitError as error:
        raise BundleError(f"{where}: {name} {error}") from error


def _read_at_once(path: Path, *, max_bytes: int) -> bytes:
    """The content of a plain file, through links; nothing else is waited for. Raises OSError, _UnfitError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for its writer
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _UnfitError("is not a plain file")
        if found.st_size > max_bytes:
            raise _UnfitError(f"has {found.st_size} bytes, expected at most {max_bytes}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)  # it may have grown
    finally:
        os.close(descriptor)


class _UnfitError(ValueError):
    """A file that cannot be part of a bundle; the message says why, after its name."""


def _read_golden(content: bytes, manifest: Manifest, where: str) -> tuple[GoldenCase, ...]:
    """Keys are `CASE/in/NAME` and `CASE/out/NAME`, CASE a number from 0."""
    cases: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    try:
        for key, value in load_safetensors(content).items():
            case, side, name = key.split("/")
            cases.setdefault(int(case), ({}, {}))[("in", "out").index(side)][name] = value
            if not np.isfinite(value).all():
                raise BundleError(f"{where}: {GOLDEN}: {key} holds a value that is not finite")
            if side == "out" and not value.size:
                raise BundleError(f"{where}: {GOLDEN}: {key} is empty: it proves nothing")
    except BundleError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: {GOLDEN}: {error}") from error
    if not cases:
        raise BundleError(f"{where}: {GOLDEN} holds no case")
    inputs, outputs = {spec.name for spec in manifest.inputs}, {spec.name for spec in manifest.outputs}
    for number, (given, expected) in sorted(cases.items()):
        if set(given) != inputs or not expected or not set(expected) <= outputs:
            raise BundleError(
                f"{where}: {GOLDEN}: case {number} has inputs {sorted(given)} and outputs {sorted(expected)}, "
                f"the model has {sorted(inputs)} and {sorted(outputs)}"
            )
    # A language model's caches are proven by the logits that follow from them.
    claimed = {"logits"} if isinstance(manifest.parameters, LanguageModel) else outputs
    unproven = claimed.difference(*(expected for _, expected in cases.values()))
    if unproven:
        raise BundleError(f"{where}: {GOLDEN}: no case has the outputs {sorted(unproven)}")
    return tuple(GoldenCase(inputs=cases[i][0], outputs=cases[i][1]) for i in sorted(cases))


def _read_requests(content: bytes, where: str) -> tuple[RequestCase, ...]:
    """One JSON object a line; lines end with a line feed alone, since texts may hold any other separator."""
    cases = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            row = json.loads(line)
            if set(row) != {"request", "answer"} or not all(isinstance(side, dict) for side in row.values()):
                raise BundleError(f"{where}: {REQUESTS}: line {number} is not {{request: {{...}}, answer: {{...}}}}")
        except BundleError:
            raise
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"{where}: {REQUESTS}: line {number}: {error}") from error
        cases.append(RequestCase(request=row["request"], answer=row["answer"]))
    return tuple(cases)


def pack_golden(cases: tuple[GoldenCase, ...]) -> dict[str, npt.NDArray[Any]]:
    """The tensors of `golden.safetensors`, the inverse of reading it."""
    return {
        f"{i}/{side}/{name}": np.ascontiguousarray(value)
        for i, case in enumerate(cases)
        for side, tensors in (("in", case.inputs), ("out", case.outputs))
        for name, value in tensors.items()
    }
