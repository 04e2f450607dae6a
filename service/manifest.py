"""The manifest of a bundle, as types that export writes and the service reads.

A manifest is consistent: its version is derived from its content, its task is that of its family, and its tensors are
the ones that the family's parameters determine.
"""

import hashlib
import json
import struct
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from service.families import TASK_OF_FAMILY, FrozenModel, Parameters, Size, Specs, TaskName

MODEL, MANIFEST, CARD, TOKENIZER = "model.onnx", "manifest.json", "card.md", "tokenizer.json"
GOLDEN, REQUESTS, TOKENS = "golden.safetensors", "requests.jsonl", "tokens.jsonl"
MODEL_NAME = "^[a-z0-9]+(-[a-z0-9]+)*$"
MAX_MODEL_NAME = 64
MAX_FILES = 64
# Of one tensor for one item: 4 GiB of float32.
MAX_ITEM_ELEMENTS = 1 << 30
MAX_FLOAT32 = 3.4028234663852886e38
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


def _to_float32(value: float) -> float:
    """Return the nearest number of float32, in which models compute."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


Float32 = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32), AfterValidator(_to_float32)]


class RequestLimits(FrozenModel):
    """The largest request: items per request, and steps (tokens) per item if the model has a steps axis."""

    max_items: int = Field(ge=1, le=1 << 16)
    max_steps: int | None = Field(default=None, ge=1, le=1 << 20)


class Tolerance(FrozenModel):
    """|served - reference| <= atol + rtol * |reference|; `measured` is the largest difference seen at export.

    The upper bounds ensure that no tolerance is wide enough to accept another model. `rounding` is the largest
    float32 rounding error of PyTorch on the golden cases, relative to the largest magnitude of its row; goldens are
    replayed on a CPU within a small multiple of it. Bundles of earlier exports have none.
    """

    atol: float = Field(ge=0, le=0.01)
    rtol: float = Field(ge=0, le=0.01)
    measured: float = Field(ge=0)
    rounding: float | None = Field(default=None, ge=0, le=0.01)


class MutationScore(FrozenModel):
    """Of `mutants` of the graph drawn from `seed`, how many export refuses and how many the golden cases alone.

    Mutants whose outputs stay within the tolerance on every input that was tried are not counted.
    """

    mutants: int = Field(ge=0)
    killed_at_export: int = Field(ge=0)
    killed_at_load: int = Field(ge=0)
    seed: int = Field(ge=0)


class ValueRange(FrozenModel):
    """The lowest and the highest value of a numeric input at which export has shown parity, rounded to float32."""

    low: Float32
    high: Float32

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


FINITE = ValueRange(low=-MAX_FLOAT32, high=MAX_FLOAT32)
Strategy = Literal["none", "minimum-batch-2", "batch-buckets", "length-buckets"]


class Invariance(FrozenModel):
    """Whether an item's answer depends on its batch, measured over random companions, positions, paddings and sizes.

    `strategy` is the shape strategy that the engine applies to every batch; `bounds` are the batch sizes or lengths of
    its buckets, ascending.
    """

    level: Literal["bitwise", "tolerance"]
    measured: float = Field(ge=0)
    how: str
    strategy: Strategy = "none"
    bounds: tuple[Size, ...] = Field(default=(), max_length=64)

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.strategy.endswith("-buckets") != bool(self.bounds):
            raise ValueError(f"{self.strategy} has {len(self.bounds)} bounds; only buckets have bounds")
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds {list(self.bounds)} do not ascend")
        return self


class FileEntry(FrozenModel):
    """Digest and size in bytes of one file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Provenance(FrozenModel):
    """The origin of the weights: sha256 of each source of data, metrics on the test split, version of each package.

    `dataset` is the name of the data set; bundles of earlier exports have none.
    """

    recipe: str
    commit: str
    seed: int
    steps: int
    dataset: str = ""
    data: dict[str, str]
    metrics: dict[str, float]
    versions: dict[str, str]
    opset: int


class Manifest(FrozenModel):
    """The contract of a bundle: one tolerance per output; `version` is the `content_version()` of all other fields.

    `domain` maps inputs of floats to the values that the service accepts; bundles of earlier exports have none.
    `control_flow` admits the operators If, Loop and Scan in the graph.
    """

    format_version: Literal[1] = 1
    name: str = Field(pattern=MODEL_NAME, max_length=MAX_MODEL_NAME)
    version: str = Field(pattern="^[0-9a-f]{12}$")
    task: TaskName
    summary: str
    inputs: Specs
    outputs: Specs
    parameters: Parameters
    limits: RequestLimits
    domain: dict[str, ValueRange] = Field(default_factory=dict)
    tolerance: dict[str, Tolerance]
    mutation: MutationScore | None = None
    invariance: Invariance
    control_flow: bool = False
    files: dict[FileName, FileEntry] = Field(max_length=MAX_FILES)
    provenance: Provenance

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        family = self.parameters.family
        if self.task != TASK_OF_FAMILY[family]:
            raise ValueError(f"task is {self.task!r}, a {family} serves {TASK_OF_FAMILY[family]!r}")
        for side in ("inputs", "outputs"):
            declared, expected = set(getattr(self, side)), set(getattr(self.parameters, side))
            different = sorted({spec.name for spec in declared ^ expected})
            if different or len(getattr(self, side)) != len(expected):
                raise ValueError(f"{side} are not those of this {family}: they differ in {different}")
        for spec in (*self.inputs, *self.outputs):
            steps = self.limits.max_steps or 1
            elements = prod(axis if isinstance(axis, int) else steps for axis in spec.shape if axis != "batch")
            if elements > MAX_ITEM_ELEMENTS:
                raise ValueError(
                    f"tensor {spec.name!r} has {elements} elements an item, expected at most {MAX_ITEM_ELEMENTS}"
                )
        if unpaired := {output.name for output in self.outputs} ^ set(self.tolerance):
            raise ValueError(f"outputs and tolerances differ in {sorted(unpaired)}")
        if unknown := set(self.domain) - {spec.name for spec in self.inputs if spec.dtype == "float32"}:
            raise ValueError(f"domain names {sorted(unknown)}, which are no inputs of floats")
        if self.invariance.strategy == "length-buckets":
            max_steps, longest = self.limits.max_steps, self.invariance.bounds[-1]
            if max_steps is None or "lengths" not in {spec.name for spec in self.inputs}:
                raise ValueError("length-buckets needs a model with lengths and max_steps")
            if longest < max_steps:
                raise ValueError(f"length-buckets end at {longest}, max_steps is {max_steps}")
        required = {MODEL, GOLDEN, REQUESTS} | ({TOKENIZER} if hasattr(self.parameters, "vocabulary") else set())
        if absent := required - set(self.files):
            raise ValueError(f"files lack {sorted(absent)}")
        return self

    def value_range(self, name: str) -> ValueRange:
        """Return the values that the service accepts for an input of floats: its domain, or all finite numbers."""
        return self.domain.get(name, FINITE)

    @classmethod
    def versioned(cls, **fields: Any) -> Self:
        """Return a manifest of these fields whose version is derived from its content."""
        manifest = cls(version="0" * 12, **fields)
        return manifest.model_copy(update={"version": manifest.content_version()})

    def content_version(self) -> str:
        """Return the first 12 hex digits of the sha256 over the canonical JSON of all fields but the version.

        Optional fields without a value are left out, so manifests that predate them keep their version.
        """
        content = self.model_dump(mode="json", exclude={"version"})
        if self.mutation is None:
            del content["mutation"]
        for tolerance in content["tolerance"].values():
            if tolerance["rounding"] is None:
                del tolerance["rounding"]
        if not self.domain:
            del content["domain"]
        if not self.control_flow:
            del content["control_flow"]
        if not self.provenance.dataset:
            del content["provenance"]["dataset"]
        if self.invariance.strategy == "none":
            del content["invariance"]["strategy"], content["invariance"]["bounds"]
        serialized = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(serialized.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"
