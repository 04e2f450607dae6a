"""A scoring job: every option that decides the bytes of its output, and where its files are.

Invariant: jobs of equal identity and input write equal bytes, on any number of workers, even if killed and resumed.
"""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import onnxruntime
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from service.engine.sessions.device import Device

Format = Literal[
    "parquet", "csv", "jsonl", "openai", "text", "npy", "idx", "safetensors", "images", "tar", "webdataset",
    "arrow", "orc", "ts", "delta", "iceberg",
]  # fmt: skip
# Formats with lines that are planned but are no rows, such as blank ones.
LINE_FORMATS: frozenset[Format] = frozenset({"jsonl", "openai", "text", "ts"})
SinkFormat = Literal["parquet", "csv", "jsonl"]
# The layout and meaning of what is written, shard boundaries included.
OUTPUT_VERSION = 8


class ScoringError(Exception):
    """A job that cannot start or continue. The message names the file, shard or option and what to do about it."""


# The libraries whose version can change a bit of the output.
RUNTIME = {"onnxruntime": onnxruntime.__version__, "pyarrow": pa.__version__}


class TextOptions(BaseModel):
    """How files of text are to be understood, as far as the job says so; a file decides what is None.

    An empty `quote` or `escape` means that the files have none.
    """

    model_config = ConfigDict(frozen=True)

    header: bool = True
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None


class Job(BaseModel):
    """The options of a job after every default has been resolved.

    `query` names the database without credentials, and the query whose stored result is the input; empty if there is
    none. `columns` maps fields of the task to columns of the input. `keep` lists the input columns that are copied to
    the output; `("*",)` means all but those that feed the model. `header` says whether a CSV file starts with column
    names; with `delimiter`, `quote`, `escape` and `encoding` it makes `text_options`. `escape_formulas` puts an
    apostrophe before texts of a CSV output that a spreadsheet would run. `partition_by` names copied columns, or the
    predicted `label`, whose values are folders of the predictions. `request` holds the fields of the task's
    request that apply to every row, such as top_k or max_tokens. `output` is the URI of a location with its options, or
    an absolute path. `append_to` is a Delta table in the same form, or CATALOG.NAMESPACE.TABLE of Iceberg.
    `verify`: files of the output are compared by hash.

    With `new_only` the input grows, and files that are scored are not read again. Rows outside of `sample`, a share,
    and rows that do not fulfil `where` are left out.

    `copied_schema` is the schema of the id and the copied columns, for all files alike (`encode_schema`). `unreadable`
    says why the columns of a file could not be read; a run leaves such a file out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str = Field(pattern="^[0-9a-f]{12}$")
    bundles: Path
    inputs: tuple[str, ...]
    output: Annotated[str, BeforeValidator(str)]
    query: str = ""
    input_format: Format
    sink: SinkFormat
    columns: dict[str, str]
    id_column: str | None
    keep: tuple[str, ...]
    header: bool
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    escape_formulas: bool = False
    partition_by: tuple[str, ...] = ()
    new_only: bool = False
    append_to: str | None = None
    copied_schema: str = ""
    unreadable: dict[str, str] = {}
    request: dict[str, Any]
    shard_rows: int = Field(ge=1)
    limit: int | None = Field(ge=0)
    where: str | None = None
    sample: float | None = Field(default=None, gt=0, le=1)
    sample_seed: int = 0
    device: Device
    verify: bool = False
    runtime: dict[str, str] = RUNTIME

    @property
    def answers_as_openai(self) -> bool:
        """Whether the output is that of an OpenAI batch."""
        return self.input_format == "openai" and self.sink == "jsonl"

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The columns that the job names one by one; a name may be a path into a nested column."""
        names = [*self.columns.values(), *([self.id_column] if self.id_column else []), *self.keep]
        return tuple(name for name in dict.fromkeys(names) if name != "*")

    @property
    def table_place(self) -> str | None:
        """The table that the predictions are appended to, without the options of its store."""
        return self.append_to.partition("?")[0] if self.append_to and "://" in self.append_to else self.append_to

    def identity(self) -> dict[str, Any]:
        """The JSON values that two runs must share to belong to one job."""
        excluded = {"bundles", "output", "append_to", "inputs", "verify", "copied_schema", "unreadable"}
        # Left out if unused, so that the outputs of earlier releases stay resumable.
        excluded |= {name for name in ("partition_by", "new_only") if not getattr(self, name)}
        content = self.model_dump(mode="json", exclude=excluded)
        return {**content, "output_version": OUTPUT_VERSION}

    @property
    def text_options(self) -> TextOptions:
        return TextOptions(**{name: getattr(self, name) for name in TextOptions.model_fields})

    @functools.cached_property
    def copied(self) -> pa.Schema:
        """The id and the copied columns, in the order of the output."""
        return (
            pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.copied_schema)))
            if self.copied_schema
            else pa.schema([])
        )


JOBS = TypeAdapter(tuple[Job, ...])


def encode_schema(schema: pa.Schema) -> str:
    """A schema as a text that JSON can hold."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def digest(*parts: str) -> str:
    """Hash the parts with sha256, each prefixed by its length so that parts cannot run into each other."""
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()
