"""A scoring job: every option that decides the bytes of its output, and where its files are.

Invariant: jobs of equal identity and input write equal bytes, on any number of workers, even if killed and resumed.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import onnxruntime
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from service.engine.sessions.device import Device

Format = Literal[
    "parquet", "csv", "jsonl", "openai", "text", "npy", "idx", "safetensors", "images", "tar", "webdataset",
    "arrow", "orc", "ts",
]  # fmt: skip
SinkFormat = Literal["parquet", "csv", "jsonl"]
# The layout and meaning of what is written, shard boundaries included.
OUTPUT_VERSION = 7


class ScoringError(Exception):
    """A job that cannot start or continue. The message names the file, shard or option and what to do about it."""


# The libraries whose version can change a bit of the output.
RUNTIME = {"onnxruntime": onnxruntime.__version__, "pyarrow": pa.__version__}


class Job(BaseModel):
    """The options of a job after every default has been resolved.

    `columns` maps fields of the task to columns of the input. `keep` lists the input columns that are copied to the
    output; `("*",)` means all but those that feed the model. `header` says whether a CSV file starts with column names.
    `request` holds the fields of the task's request that apply to every row, such as top_k or max_tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str = Field(pattern="^[0-9a-f]{12}$")
    bundles: Path
    inputs: tuple[str, ...]
    output: Path
    input_format: Format
    sink: SinkFormat
    columns: dict[str, str]
    id_column: str | None
    keep: tuple[str, ...]
    header: bool
    request: dict[str, Any]
    shard_rows: int = Field(ge=1)
    limit: int | None = Field(ge=0)
    device: Device
    runtime: dict[str, str] = RUNTIME

    @property
    def answers_as_openai(self) -> bool:
        """Whether the output is that of an OpenAI batch."""
        return self.input_format == "openai" and self.sink == "jsonl"

    def identity(self) -> dict[str, Any]:
        """The JSON values that two runs must share to belong to one job."""
        content = self.model_dump(mode="json", exclude={"bundles", "output", "inputs"})
        return {**content, "output_version": OUTPUT_VERSION}


def digest(*parts: str) -> str:
    """Hash the parts with sha256, each prefixed by its length so that parts cannot run into each other."""
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()
