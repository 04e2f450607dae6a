"""The bundle: what training and export hand to the service, owned by its reader.

A bundle is a folder `bundles/NAME/VERSION/` that is complete, immutable and content-addressed: VERSION is derived from
the manifest, and the manifest holds the hash of every other file. `open_bundle` returns only what passed every check,
and the bytes it returns are the bytes that were hashed.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from service.errors import BundleError
from service.onnx_wire import check_model

MAX_MANIFEST_BYTES = 1 << 20
MODEL, MANIFEST, GOLDEN, REQUESTS, TOKENIZER, CARD = (
    "model.onnx",
    "manifest.json",
    "golden.safetensors",
    "requests.jsonl",
    "tokenizer.json",
    "card.md",
)

Task = Literal["classify", "sequence-predict", "generate"]
Dtype = Literal["uint8", "int64", "float32"]
Tensors = Mapping[str, npt.NDArray[Any]]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(Frozen):
    """A graph input or output. An axis is a size or, where it may vary, a name ("batch", "steps", "past")."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]


Size = Annotated[int, Field(ge=1)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class Image(Frozen):
    """Height and width in pixels; `mode` as Pillow names it: "L" is [height, width], "RGB" [height, width, 3]."""

    height: Size
    width: Size
    mode: Literal["L", "RGB"]


class ImageClassifier(Frozen):
    """images uint8 [batch, height, width(, 3)] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["image-classifier"] = "image-classifier"
    labels: Labels
    image: Image


class SeriesClassifier(Frozen):
    """series float32 [batch, steps, channels], lengths int64 [batch] -> logits, probabilities [batch, labels]."""

    family: Literal["series-classifier"] = "series-classifier"
    labels: Labels
    channels: Size


class SeriesTagger(Frozen):
    """As a series classifier, with state: h, c float32 [batch, layers, hidden] in, next_h, next_c out.

    logits and probabilities are [batch, steps, labels]; steps past a row's length mean nothing.
    """

    family: Literal["series-tagger"] = "series-tagger"
    labels: Labels
    channels: Size
    layers: Size
    hidden: Size


class TextClassifier(Frozen):
    """ids int64 [batch, steps], lengths int64 [batch] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["text-classifier"] = "text-classifier"
    labels: Labels
    vocabulary: Size


class LanguageModel(Frozen):
    """One graph for prefill and decode, with a key/value cache that the caller keeps.

    ids int64 [batch, steps], past_lengths int64 [batch], past_key_I and past_value_I float32 [batch, heads, past, size]
    -> logits float32 [batch, steps, vocabulary], new_key_I and new_value_I [batch, heads, steps, size] for I < layers.
    Entries of the past at or beyond a row's past_length are ignored. past_length + steps <= limits.max_steps.
    """

    family: Literal["language-model"] = "language-model"
    vocabulary: Size
    layers: Size
    heads: Size
    head_size: Size


class ImageGenerator(Frozen):
    """latents float32 [batch, latent_size] -> samples float32 in [-1, 1], images uint8, both [batch, height, width]."""

    family: Literal["image-generator"] = "image-generator"
    latent_size: Size
    image: Image


Parameters = Annotated[
    ImageClassifier | SeriesClassifier | SeriesTagger | TextClassifier | LanguageModel | ImageGenerator,
    Field(discriminator="family"),
]


TASKS: Mapping[str, Task] = {
    "image-classifier": "classify",
    "series-classifier": "sequence-predict",
    "series-tagger": "sequence-predict",
    "text-classifier": "sequence-predict",
    "language-model": "generate",
    "image-generator": "generate",
}
READS_TEXT = ("text-classifier", "language-model")


class Limits(Frozen):
    """What one request may ask: items in a request, and steps (tokens) of one item where the model has such an axis."""

    max_items: int = Field(ge=1)
    max_steps: int | None = Field(default=None, ge=1)


class Tolerance(Frozen):
    """|served - reference| <= atol + rtol * |reference|; `measured` is the largest difference seen at export.

    The ceilings keep a tolerance from being wide enough to hide another model.
    """

    atol: float = Field(ge=0, le=0.01)
    rtol: float = Field(ge=0, le=0.01)
    measured: float = Field(ge=0)


class Invariance(Frozen):
    """Whether an item's answer depends on its batch: measured over random mates, positions, paddings and sizes."""

    level: Literal["bitwise", "tolerance"]
    measured: float = Field(ge=0)
    how: str


class File(Frozen):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Provenance(Frozen):
    """Where the weights come from."""

    recipe: str
    commit: str
    seed: int
    steps: int
    data: dict[str, str]  # source -> sha256
    metrics: dict[str, float]  # on the held-back test split
    versions: dict[str, str]  # torch, onnx, onnxruntime, ...
    opset: int


FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Manifest(Frozen):
    """`version` is `content_version()` of all the rest."""

    format_version: Literal[1] = 1
    name: str = Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)
    version: str = Field(pattern="^[0-9a-f]{12}$")
    task: Task
    summary: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Parameters
    limits: Limits
    tolerance: dict[str, Tolerance]  # one for each output
    invariance: Invariance
    files: dict[FileName, File]
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task != TASKS[self.parameters.family]:
            raise ValueError(
                f"task is {self.task!r}, a {self.parameters.family} serves {TASKS[self.parameters.family]!r}"
            )
        unpaired = {output.name for output in self.outputs} ^ set(self.tolerance)
        if unpaired:
            raise ValueError(f"outputs and tolerances differ in {sorted(unpaired)}")
        needed = {MODEL, GOLDEN, REQUESTS} | ({TOKENIZER} if self.parameters.family in READS_TEXT else set())
        if needed - set(self.files):
            raise ValueError(f"files lack {sorted(needed - set(self.files))}")
        return self

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """Make a manifest whose version is derived from its content."""
        draft = cls(version="0" * 12, **fields)
        return draft.model_copy(update={"version": draft.content_version()})

    def content_version(self) -> str:
        """First 12 hex digits of the sha256 over the canonical JSON of everything but the version."""
        content = self.model_dump(mode="json", exclude={"version"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


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
        version = (folder / "current").read_text().strip()
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: no file `current` in {folder}; export the model first") from None
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


def _read_manifest(folder: Path, where: str) -> Manifest:
    content = _read_plain(folder, where, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{where}: {MANIFEST}: field {field!r}: {first['msg']}") from error
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
    path = folder / name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{where}: {name} is not a plain file")
        if found.st_size > max_bytes:
            raise BundleError(f"{where}: {name} has {found.st_size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{where}: cannot read {name}: {error.strerror}") from error


def _read_golden(content: bytes, manifest: Manifest, where: str) -> tuple[GoldenCase, ...]:
    """Keys are `CASE/in/NAME` and `CASE/out/NAME`, CASE a number from 0."""
    cases: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    try:
        for key, value in load_safetensors(content).items():
            case, side, name = key.split("/")
            cases.setdefault(int(case), ({}, {}))[("in", "out").index(side)][name] = value
            if not np.isfinite(value).all():
                raise BundleError(f"{where}: {GOLDEN}: {key} holds a value that is not finite")
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
