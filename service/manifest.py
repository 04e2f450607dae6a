"""The manifest of a bundle, as types that export writes and the service reads.

A manifest is consistent: its version is derived from its content, its reader and head make a pair that is served, and
its tensors are the ones that the pair requires. Manifests of format 1 are read as a pair, too.
"""

import hashlib
import json
import struct
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from service.contract import format_1
from service.contract.heads import Head
from service.contract.pairs import TaskName, pair_error, required_inputs, task_of
from service.contract.precision import INTEGERS, MAX_INTEGER_TOLERANCE, MAX_TOLERANCE, Precision
from service.contract.readers import MAX_FLOAT32, Reader
from service.contract.tensors import BATCH, FLOATS, FrozenModel, Size, Specs, TensorSpec

MODEL, MANIFEST, CARD, TOKENIZER = "model.onnx", "manifest.json", "card.md", "tokenizer.json"
# The weights of a large graph; a graph of less than 2 GB may hold them itself.
MODEL_DATA = "model.onnx.data"
GOLDEN, REQUESTS, TOKENS = "golden.safetensors", "requests.jsonl", "tokens.jsonl"
# Of the inputs and predictions on held-out data; models that generate have none.
DISTRIBUTIONS = "distributions.json"
MODEL_NAME = "^[a-z0-9]+(-[a-z0-9]+)*$"
MAX_MODEL_NAME = 64
# Words of the routes of the Open Inference Protocol that stand where the name of a model may stand, or beside it.
RESERVED_NAMES = frozenset({"config", "index", "infer", "models", "ready", "stats", "versions"})
MAX_FILES = 64
# Of one tensor for one item: 4 GiB of float32.
MAX_ITEM_ELEMENTS = 1 << 30
MAX_AXES = 8
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


def _check_not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a word of the routes, not the name of a model; choose another name")
    return name


ModelName = Annotated[str, Field(pattern=MODEL_NAME, max_length=MAX_MODEL_NAME), AfterValidator(_check_not_reserved)]


def _to_float32(value: float) -> float:
    """Return the nearest number of float32, in which models compute."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


Float32 = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32), AfterValidator(_to_float32)]


def describe_sizes(low: int, high: int, multiple_of: int) -> str:
    """Return in words which sizes an axis may have."""
    return f"{low} to {high}" if multiple_of == 1 else f"{low} to {high} in multiples of {multiple_of}"


class AxisRange(FrozenModel):
    """The smallest and the largest size of a free axis, both multiples of `multiple_of`, as all sizes between."""

    min: int = Field(ge=1, le=1 << 20)
    max: int = Field(ge=1, le=1 << 20)
    multiple_of: int = Field(default=1, ge=1, le=1 << 20)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.min % self.multiple_of or self.max % self.multiple_of:
            raise ValueError(f"min {self.min} and max {self.max} are not both multiples of {self.multiple_of}")
        return self

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max and size % self.multiple_of == 0

    def __str__(self) -> str:
        return describe_sizes(self.min, self.max, self.multiple_of)

    @property
    def sizes(self) -> range:
        """All sizes."""
        return range(self.min, self.max + 1, self.multiple_of)

    def clip(self, size: int) -> int:
        """Return the size in the range that is nearest to `size`."""
        return min(max(round(size / self.multiple_of) * self.multiple_of, self.min), self.max)


class RequestLimits(FrozenModel):
    """The largest request: items per request, steps (tokens) per item if the model has a steps axis.

    `axes` bounds every other free axis but `batch` and `past`, by name.
    """

    max_items: int = Field(ge=1, le=1 << 16)
    max_steps: int | None = Field(default=None, ge=1, le=1 << 20)
    axes: dict[str, AxisRange] = Field(default_factory=dict, max_length=64)

    def axis_range(self, axis: str) -> AxisRange:
        """Return the sizes that a free axis of one item may have. Raises KeyError for an axis without bounds."""
        if axis in {"steps", "past"} and axis not in self.axes:
            if self.max_steps is None:
                raise KeyError(axis)
            return AxisRange(min=1, max=self.max_steps)
        return self.axes[axis]


def _stored_limits(limits: dict[str, Any]) -> dict[str, Any]:
    """Return dumped limits without the fields that manifests had not from the beginning, where they say nothing."""
    axes = {
        axis: {key: value for key, value in bounds.items() if (key, value) != ("multiple_of", 1)}
        for axis, bounds in limits["axes"].items()
    }
    return {**{key: value for key, value in limits.items() if key != "axes"}, **({"axes": axes} if axes else {})}


class Tolerance(FrozenModel):
    """|served - reference| <= atol + rtol * |reference|; `measured` is the largest difference seen at export.

    The upper bounds ensure that no tolerance is wide enough to accept another model. `rounding` is the largest
    float32 rounding error of PyTorch on the golden cases, relative to the largest magnitude of its row; goldens are
    replayed on a CPU within a small multiple of it. Bundles of earlier exports have none.
    """

    atol: float = Field(ge=0, le=MAX_INTEGER_TOLERANCE)
    rtol: float = Field(ge=0, le=MAX_TOLERANCE)
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

    `dataset` is the name of the data set; bundles of earlier exports have none. `reference` is what computed the
    expected outputs: "PyTorch", "Keras", or "the given outputs". `recipe` is the recipe of a run, or how the model
    came in ("module", "onnx", "hf", "keras").
    """

    recipe: str
    reference: str = "PyTorch"
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
    `control_flow` admits the operators If, Loop and Scan in the graph. `precision` is that of a variant; other models
    compute in float32.
    """

    format_version: Literal[1, 2] = 2
    name: ModelName
    version: str = Field(pattern="^[0-9a-f]{12}$")
    summary: str
    reader: Reader
    head: Head
    inputs: Specs
    outputs: Specs
    limits: RequestLimits
    domain: dict[str, ValueRange] = Field(default_factory=dict)
    tolerance: dict[str, Tolerance]
    mutation: MutationScore | None = None
    invariance: Invariance
    control_flow: bool = False
    precision: Precision | None = None
    files: dict[FileName, FileEntry] = Field(max_length=MAX_FILES)
    provenance: Provenance

    @model_validator(mode="before")
    @classmethod
    def _read_format_1(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("format_version", 1) != 1 or "parameters" not in content:
            return content
        try:
            upgraded = format_1.upgrade(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"parameters are not those of a family of format 1: {error}") from error
        return {"format_version": 1, **upgraded}

    @cached_property
    def task(self) -> TaskName:
        """The task whose route serves this model."""
        return task_of(self.reader, self.head, self.inputs)

    @property
    def pair(self) -> str:
        """The kinds of reader and head, such as "image -> labels"."""
        return f"{self.reader.kind} -> {self.head.kind}"

    @cached_property
    def is_ragged(self) -> bool:
        """Whether rows of several lengths may share a batch: the graph reads how long each is from `lengths`."""
        return self.reader.kind in {"series", "text"} and self.head.kind != "language-model"

    @property
    def is_batched(self) -> bool:
        """Whether the tensors have a batch axis; without one, every request has one item and runs alone."""
        return any(BATCH in spec.shape for spec in self.inputs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the head; () if it has none."""
        return getattr(self.head, "labels", ())

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if reason := pair_error(self.reader, self.head):
            raise ValueError(reason)
        if self.format_version == 1 and (self.reader.kind, self.head.kind) not in format_1.FAMILY_OF_PAIR:
            raise ValueError(f"format 1 has no pair {self.pair}")
        self._check_tensors()
        if unpaired := {output.name for output in self.outputs} ^ set(self.tolerance):
            raise ValueError(f"outputs and tolerances differ in {sorted(unpaired)}")
        self._check_tolerance()
        if unknown := set(self.domain) - {spec.name for spec in self.inputs if spec.dtype in FLOATS}:
            raise ValueError(f"domain names {sorted(unknown)}, which are no inputs of floats")
        if self.invariance.strategy == "length-buckets":
            max_steps, longest = self.limits.max_steps, self.invariance.bounds[-1]
            if max_steps is None or not self.is_ragged:
                raise ValueError("length-buckets needs a model with lengths and max_steps")
            if longest < max_steps:
                raise ValueError(f"length-buckets end at {longest}, max_steps is {max_steps}")
        required = {MODEL, GOLDEN, REQUESTS} | ({TOKENIZER} if self.reader.kind == "text" else set())
        if absent := required - set(self.files):
            raise ValueError(f"files lack {sorted(absent)}")
        return self

    @property
    def allows_tf32(self) -> bool:
        """Whether a GPU may compute products in TF32."""
        return self.precision is not None and self.precision.kind == "tf32"

    def _check_tolerance(self) -> None:
        """Raise ValueError if a tolerance is wider than the precision of the model explains."""
        is_integer = self.precision is not None and self.precision.kind in INTEGERS
        limit = MAX_INTEGER_TOLERANCE if is_integer else MAX_TOLERANCE
        for name, tolerance in self.tolerance.items():
            if tolerance.atol > limit:
                raise ValueError(f"tolerance.{name}.atol is {tolerance.atol:g}, expected at most {limit:g}")

    def _check_tensors(self) -> None:
        """Raise ValueError unless the tensors are those that the pair requires, each of a bounded size."""
        pair = f"{self.reader.kind} and {self.head.kind}"
        required = required_inputs(self.reader, self.head)
        if required is not None and (different := sorted({spec.name for spec in set(self.inputs) ^ set(required)})):
            raise ValueError(f"inputs are not those of the pair {pair}: they differ in {different}")
        outputs = self.head.outputs(self.reader)
        if absent := sorted(spec.name for spec in set(outputs) - set(self.outputs)):
            raise ValueError(f"outputs lack those of the pair {pair}, or have other axes: {absent}")
        batched = {BATCH in spec.shape for spec in (*self.inputs, *self.outputs)}
        if len(batched) > 1:
            raise ValueError("either every input and output has the axis 'batch', or none has")
        if batched == {False} and (self.limits.max_items > 1 or self.invariance.strategy != "none"):
            raise ValueError("a model without the axis 'batch' needs limits.max_items 1 and the strategy none")
        for specs, side in ((self.inputs, "inputs"), (self.outputs, "outputs")):
            names = [spec.name for spec in specs]
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{side} are {names}, expected at least one, each name once")
            for spec in specs:
                self._check_size(spec)

    def _check_size(self, spec: TensorSpec) -> None:
        if len(spec.shape) > MAX_AXES or spec.shape.count(BATCH) > 1:
            raise ValueError(f"tensor {spec.name!r} has the axes {list(spec.shape)}, expected at most {MAX_AXES}")
        sizes = []
        for axis in spec.shape:
            if isinstance(axis, int):
                sizes.append(axis)
            elif axis != BATCH:
                try:
                    sizes.append(self.limits.axis_range(axis).max)
                except KeyError:
                    limit = "max_steps" if axis in {"steps", "past"} else f"axes.{axis}"
                    raise ValueError(
                        f"tensor {spec.name!r} has a free axis {axis!r}; limits.{limit} is missing"
                    ) from None
        if (elements := prod(sizes)) > MAX_ITEM_ELEMENTS:
            raise ValueError(
                f"tensor {spec.name!r} has {elements} elements an item, expected at most {MAX_ITEM_ELEMENTS}"
            )

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
        content["limits"] = _stored_limits(content["limits"])
        resize = content["reader"].get("resize") or {}
        if resize.get("halves") == "even":
            del resize["halves"]
        if self.mutation is None:
            del content["mutation"]
        if content["head"].get("chat_template", "") is None:
            del content["head"]["chat_template"]
        for tolerance in content["tolerance"].values():
            if tolerance["rounding"] is None:
                del tolerance["rounding"]
        if not self.domain:
            del content["domain"]
        if not self.control_flow:
            del content["control_flow"]
        if self.precision is None:
            del content["precision"]
        if self.provenance.reference == "PyTorch":
            del content["provenance"]["reference"]
        if not self.provenance.dataset:
            del content["provenance"]["dataset"]
        if self.invariance.strategy == "none":
            del content["invariance"]["strategy"], content["invariance"]["bounds"]
        if self.format_version == 1:
            content = format_1.downgrade(content, self.task)
        serialized = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(serialized.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"
