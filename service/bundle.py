"""Reads the bundles that export writes and the service serves.

A bundle is a folder `bundles/NAME/VERSION/` that is complete, immutable and content-addressed: VERSION is derived from
the manifest, and the manifest holds the hash of every other file. `open_bundle` returns a bundle only if every check
passed, and the bytes that it returns are the bytes that it hashed. The weights of a large graph lie in a data file that
is mapped instead of read.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from service.contract.heads import LanguageModelHead
from service.contract.tensors import FrozenModel, pack_texts, unpack_texts
from service.data_files.data_file import DataFile, open_data_file
from service.drift.distributions import Distributions, parse_distributions
from service.errors import BundleError
from service.manifest import (
    DISTRIBUTIONS,
    GOLDEN,
    MANIFEST,
    MODEL,
    MODEL_DATA,
    REQUESTS,
    TOKENIZER,
    TOKENS,
    FileEntry,
    Manifest,
)
from service.operators import check_operators
from service.signature import MAX_SIGNATURE_BYTES, SIGNATURE, TRUSTED_KEYS, trusted_keys, verify

MAX_MANIFEST_BYTES = 1 << 20
MAX_DATA_BYTES = 1 << 36
# The most bytes of each file; a message of protobuf has less than 2 GiB.
MAX_FILE_BYTES = {
    MODEL: (1 << 31) - 1,
    MODEL_DATA: MAX_DATA_BYTES,
    GOLDEN: 1 << 28,
    REQUESTS: 1 << 26,
    TOKENIZER: 1 << 25,
    TOKENS: 1 << 26,
    DISTRIBUTIONS: 1 << 16,
}
MAX_OTHER_FILE_BYTES = 1 << 24
# Of all files that are read into memory.
MAX_BUNDLE_BYTES = 3 << 30
MAX_GOLDEN_HEADER_BYTES = 1 << 22
MAX_GOLDEN_CASES = 1024
# Of one case: items times steps.
MAX_GOLDEN_ROWS = 1 << 20
MAX_GOLDEN_AXES = 8
MAX_REQUESTS = 4096
MAX_TOKEN_CASES = 1 << 16
# Files that a manifest cannot list: itself, and the signature over it.
UNLISTED_FILES = {MANIFEST, SIGNATURE}
Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """A value for every graph input, and the expected values of the outputs that the PyTorch model defines."""

    inputs: Tensors
    outputs: Tensors


class RequestCase(FrozenModel):
    """A request body as a client sends it, and the expected answer; numbers may differ by the tolerance."""

    request: dict[str, Any]
    answer: dict[str, Any]


class TokenCase(FrozenModel):
    """A text, and the ids that the tokenizer gives for it."""

    text: str = Field(min_length=1)
    ids: tuple[int, ...] = Field(min_length=1)


CaseT = TypeVar("CaseT", RequestCase, TokenCase)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that passed every check. `data` holds the weights of a large graph; others hold them in `model`."""

    manifest: Manifest
    model: bytes
    golden: tuple[GoldenCase, ...]
    requests: tuple[RequestCase, ...]
    tokenizer: str | None
    tokens: tuple[TokenCase, ...] = ()
    data: DataFile | None = None
    distributions: Distributions | None = None

    @property
    def model_bytes(self) -> int:
        """The size of the graph and its weights."""
        return len(self.model) + (0 if self.data is None else self.data.size)


def current_version(folder: Path, pointer: str = "current") -> str:
    """Return the version that `bundles/NAME/current`, or another pointer, names; raises BundleError."""
    try:
        version = _read_regular_file(folder / pointer, f"{folder.name}: `{pointer}`", max_bytes=100).decode().strip()
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: no file `{pointer}` in {folder}; export the model first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder.name}: cannot read `{pointer}`: {error}") from error
    if not re.fullmatch("[0-9a-f]{12}", version):
        raise BundleError(f"{folder.name}: `{pointer}` holds {version[:40]!r}, expected a version of 12 hex digits")
    return version


def version_folder(folder: Path) -> Path:
    """Return a bundle's own folder, given it or the folder of its model. Raises BundleError.

    The path is resolved, because a bundle must have the names of its model and version.
    """
    folder = folder.resolve()
    return folder if (folder / MANIFEST).exists() else folder / current_version(folder)


def open_bundle(folder: Path, *, require_signature: bool = True) -> Bundle:
    """Read and check a bundle: manifest, paths, sizes, hashes, operators, cases, in this order. Raises BundleError.

    The signature is checked first, if there are trusted keys; only export, which signs bundles, opens them without.
    """
    label = f"{folder.parent.name}/{folder.name}"
    manifest = open_manifest(folder, require_signature=require_signature)
    _check_files(folder, label, manifest)
    contents = {
        name: _read_file(folder, label, name, file) for name, file in manifest.files.items() if name != MODEL_DATA
    }
    model, data = contents[MODEL], _open_data(folder, label, manifest)
    with _parsing(label, MODEL):
        check_operators(
            model,
            opset=manifest.provenance.opset,
            control_flow=manifest.control_flow,
            data_files={} if data is None else {MODEL_DATA: data.size},
        )
    with _parsing(label, TOKENIZER):
        tokenizer = contents[TOKENIZER].decode() if TOKENIZER in contents else None
    with _parsing(label, GOLDEN):
        golden = _parse_golden(contents[GOLDEN], manifest)
    with _parsing(label, REQUESTS):
        requests = _parse_lines(contents[REQUESTS], RequestCase, MAX_REQUESTS)
    with _parsing(label, TOKENS):
        tokens = _parse_lines(contents[TOKENS], TokenCase, MAX_TOKEN_CASES) if TOKENS in contents else ()
    with _parsing(label, DISTRIBUTIONS):
        content = contents.get(DISTRIBUTIONS)
        distributions = None if content is None else parse_distributions(content, manifest)
    return Bundle(
        manifest=manifest,
        model=model,
        golden=golden,
        requests=requests,
        tokenizer=tokenizer,
        tokens=tokens,
        data=data,
        distributions=distributions,
    )


def open_manifest(folder: Path, *, require_signature: bool = True) -> Manifest:
    """Read and check the manifest of a bundle, and its signature, but no other file. Raises BundleError."""
    label = f"{folder.parent.name}/{folder.name}"
    content = _read_member(folder, label, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    if require_signature:
        _check_signature(folder, label, content)
    with _parsing(label, MANIFEST):
        manifest = Manifest.model_validate_json(content)
        json.loads(content, object_pairs_hook=_unique_fields)
    if manifest.content_version() != manifest.version:
        raise BundleError(
            f"{label}: {MANIFEST} was changed: its content has version {manifest.content_version()}, "
            f"but its field `version` says {manifest.version}"
        )
    if folder.name != manifest.version or folder.parent.name != manifest.name:
        raise BundleError(f"{label}: {MANIFEST} belongs to {manifest.name}/{manifest.version}")
    return manifest


def read_distributions(folder: Path, manifest: Manifest) -> Distributions | None:
    """Return the distributions of a bundle whose manifest was checked, or None if it has none. Raises BundleError."""
    content = read_document(folder, manifest, DISTRIBUTIONS)
    with _parsing(f"{manifest.name}/{manifest.version}", DISTRIBUTIONS):
        return None if content is None else parse_distributions(content, manifest)


def read_document(folder: Path, manifest: Manifest, name: str) -> bytes | None:
    """Return a file that a checked manifest lists, with the bytes that it lists, or None. Raises BundleError."""
    file = manifest.files.get(name)
    return None if file is None else _read_file(folder, f"{manifest.name}/{manifest.version}", name, file)


def first_validation_error(error: ValidationError) -> str:
    """Return the first field that failed validation, and the reason, as one line."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"field {field!r}: {first['msg']}"


@contextmanager
def _parsing(label: str, name: str) -> Iterator[None]:
    """Turn the errors of a parser into a BundleError that names the bundle and the file."""
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = first_validation_error(error) if isinstance(error, ValidationError) else error
        raise BundleError(f"{label}: {name}: {reason}") from error


def _check_signature(folder: Path, label: str, manifest: bytes) -> None:
    with _parsing(label, TRUSTED_KEYS):
        keys = trusted_keys()
    if keys:
        if not (folder / SIGNATURE).exists():
            raise BundleError(f"{label}: there is no {SIGNATURE}; sign the bundle with python -m export.sign")
        with _parsing(label, SIGNATURE):
            verify(manifest, _read_member(folder, label, SIGNATURE, max_bytes=MAX_SIGNATURE_BYTES), keys)


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; raises ValueError if a field comes twice, because readers would take either."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return fields


def _check_files(folder: Path, label: str, manifest: Manifest) -> None:
    """Raise BundleError if a file is too large, or the folder holds one that the manifest does not list."""
    for name, file in manifest.files.items():
        max_bytes = MAX_FILE_BYTES.get(name, MAX_OTHER_FILE_BYTES)
        if file.bytes > max_bytes:
            raise BundleError(f"{label}: {name} has {file.bytes} bytes, expected at most {max_bytes}")
    total_bytes = sum(file.bytes for name, file in manifest.files.items() if name != MODEL_DATA)
    if total_bytes > MAX_BUNDLE_BYTES:
        raise BundleError(f"{label}: the files have {total_bytes} bytes, expected at most {MAX_BUNDLE_BYTES}")
    listed = UNLISTED_FILES | set(manifest.files)
    try:
        with os.scandir(folder) as entries:
            unlisted = next((entry.name for entry in entries if entry.name not in listed), None)
    except OSError as error:
        raise BundleError(f"{label}: cannot list the folder: {error.strerror}") from error
    if unlisted is not None:
        raise BundleError(f"{label}: {unlisted[:100]!r} is not a file that {MANIFEST} lists; remove it")


def _read_file(folder: Path, label: str, name: str, file: FileEntry) -> bytes:
    content = _read_member(folder, label, name, max_bytes=file.bytes)
    _check_digest(label, name, file, num_bytes=len(content), digest=hashlib.sha256(content).hexdigest())
    return content


def _check_digest(label: str, name: str, file: FileEntry, *, num_bytes: int, digest: str) -> None:
    if num_bytes != file.bytes:
        raise BundleError(f"{label}: {name} has {num_bytes} bytes, but the manifest says {file.bytes}")
    if digest != file.sha256:
        raise BundleError(f"{label}: {name} has sha256 {digest[:12]}…, but the manifest says {file.sha256[:12]}…")


def _open_data(folder: Path, label: str, manifest: Manifest) -> DataFile | None:
    """Hash and map the data file, if the manifest lists one."""
    file = manifest.files.get(MODEL_DATA)
    if file is None:
        return None
    try:
        data = open_data_file(folder / MODEL_DATA, max_bytes=file.bytes)
    except OSError as error:
        raise BundleError(f"{label}: cannot read {MODEL_DATA}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{label}: {error}") from error
    _check_digest(label, MODEL_DATA, file, num_bytes=data.size, digest=data.sha256)
    return data


def _read_member(folder: Path, label: str, name: str, *, max_bytes: int) -> bytes:
    try:
        if (folder / name).is_symlink():
            raise BundleError(f"{label}: {name} is not a regular file")
        return _read_regular_file(folder / name, f"{label}: {name}", max_bytes=max_bytes)
    except OSError as error:
        raise BundleError(f"{label}: cannot read {name}: {error.strerror}") from error


def _read_regular_file(path: Path, label: str, *, max_bytes: int) -> bytes:
    """Return the content of a regular file; follows links and never blocks. Raises OSError, BundleError."""
    # Without O_NONBLOCK, opening a FIFO would block until a process writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{label} is not a regular file")
        if status.st_size > max_bytes:
            raise BundleError(f"{label} has {status.st_size} bytes, expected at most {max_bytes}")
        # The file may have grown since fstat; one more byte than allowed reveals it to the caller.
        return file.read(max_bytes + 1)


def _parse_golden(content: bytes, manifest: Manifest) -> tuple[GoldenCase, ...]:
    """Parse tensors with the keys `CASE/in/NAME` and `CASE/out/NAME`; CASE is a number from 0."""
    header_bytes = int.from_bytes(content[:8], "little")
    if header_bytes > MAX_GOLDEN_HEADER_BYTES:
        raise ValueError(f"the header has {header_bytes} bytes, expected at most {MAX_GOLDEN_HEADER_BYTES}")
    cases: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    sides = {"in": manifest.inputs, "out": manifest.outputs}
    texts = {side: {spec.name for spec in specs if spec.dtype == "string"} for side, specs in sides.items()}
    for key, value in load_safetensors(content).items():
        if not (match := re.fullmatch("(0|[1-9][0-9]{0,8})/(in|out)/(.+)", key)):
            raise ValueError(f"{key[:80]!r} is not CASE/in/NAME or CASE/out/NAME")
        case, side, name = match.groups()
        cases.setdefault(int(case), ({}, {}))[("in", "out").index(side)][name] = value
        if value.ndim > MAX_GOLDEN_AXES or prod(value.shape[:2]) > MAX_GOLDEN_ROWS:
            raise ValueError(
                f"{key} has the axes {list(value.shape)}, expected at most {MAX_GOLDEN_AXES}, "
                f"the first two with at most {MAX_GOLDEN_ROWS} rows together"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{key} holds a value that is not finite")
        if name in texts[side]:
            cases[int(case)][("in", "out").index(side)][name] = unpack_texts(value, key)
        if side == "out" and not value.size:
            raise ValueError(f"{key} is empty, expected at least one value")
    if not cases:
        raise ValueError("the file holds no case")
    if len(cases) > MAX_GOLDEN_CASES:
        raise ValueError(f"the file holds {len(cases)} cases, expected at most {MAX_GOLDEN_CASES}")
    inputs, outputs = {spec.name for spec in manifest.inputs}, {spec.name for spec in manifest.outputs}
    for number, (given, expected) in sorted(cases.items()):
        if not _has_inputs(given, inputs, manifest) or not expected or not set(expected) <= outputs:
            raise ValueError(
                f"case {number} has inputs {sorted(given)} and outputs {sorted(expected)}, "
                f"the model has {sorted(inputs)} and {sorted(outputs)}"
            )
    # The caches of a language model need no golden values: the logits of later steps depend on them.
    required = {"logits"} if isinstance(manifest.head, LanguageModelHead) else outputs
    if absent := required.difference(*(expected for _, expected in cases.values())):
        raise ValueError(f"no case has the outputs {sorted(absent)}")
    return tuple(GoldenCase(inputs=cases[i][0], outputs=cases[i][1]) for i in sorted(cases))


def _has_inputs(given: Tensors, inputs: set[str], manifest: Manifest) -> bool:
    """Return whether a case has all inputs; a language model reads the prompts of a case without caches itself."""
    is_prompted = isinstance(manifest.head, LanguageModelHead) and set(given) == {"ids", "past_lengths"}
    return is_prompted or set(given) == inputs


def _parse_lines(content: bytes, kind: type[CaseT], max_lines: int) -> tuple[CaseT, ...]:
    """Parse one JSON object per line; only a line feed ends a line, because texts may hold other separators."""
    cases, lines = [], content.removesuffix(b"\n").split(b"\n", max_lines)
    if len(lines) > max_lines:
        raise ValueError(f"the file has more than {max_lines} lines")
    for number, line in enumerate(lines, start=1):
        try:
            cases.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"line {number}: {first_validation_error(error)}") from error
    return tuple(cases)


def pack_golden(cases: tuple[GoldenCase, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of `golden.safetensors`: the inverse of reading the file."""
    return {
        f"{i}/{side}/{name}": pack_texts(value) if value.dtype.hasobject else np.ascontiguousarray(value)
        for i, case in enumerate(cases)
        for side, tensors in (("in", case.inputs), ("out", case.outputs))
        for name, value in tensors.items()
    }
