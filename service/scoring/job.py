"""A scoring job: everything that decides the bytes of its output, and where its parts are.

Two jobs with the same `digest` and the same input write the same bytes, on any number of workers, killed or not.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import onnxruntime
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from service.engine.sessions.device import Device

Format = Literal["parquet", "csv", "jsonl", "openai", "text", "npy", "safetensors", "images", "tar"]
SinkFormat = Literal["parquet", "csv", "jsonl"]
OUTPUT_VERSION = 5  # of the layout and meaning of what is written


class ScoringError(Exception):
    """A job that cannot begin or go on; the message names the file, shard or option, and what to do."""


def _runtime() -> dict[str, str]:
    """The parts whose version can change a bit of the output."""
    return {"onnxruntime": onnxruntime.__version__, "pyarrow": pa.__version__}


class Job(BaseModel):
    """The options of a job after every default was settled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str = Field(pattern="^[0-9a-f]{12}$")
    bundles: Path
    inputs: tuple[str, ...]
    output: Path
    input_format: Format
    sink: SinkFormat
    columns: dict[str, str]  # field of the task -> column of the input
    id_column: str | None
    keep: tuple[str, ...]  # input columns that go into the output; ("*",): all but the field's own
    header: bool  # whether a CSV has a line of names
    request: dict[str, Any]  # fields of the task's request that hold for every row: top_k, truncate, max_tokens, seed
    shard_rows: int = Field(ge=1)
    limit: int | None = Field(ge=0)
    device: Device
    runtime: dict[str, str] = Field(default_factory=_runtime)

    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs to belong to one job, as JSON values."""
        content = self.model_dump(mode="json", exclude={"bundles", "output", "inputs"})
        return {**content, "output_version": OUTPUT_VERSION}

    @property
    def bundle(self) -> Path:
        return self.bundles / self.model / self.version


def digest(*parts: str) -> str:
    """sha256 over parts that cannot run into each other."""
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Each option that differs, in words."""
    names = sorted(before.keys() | after.keys())
    return [f"{n} was {before.get(n)!r}, is {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]
