"""Which options decide whether two runs belong to one job."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.scoring.job import Job, digest

FIELDS: dict[str, Any] = {
    "model": "tiny-texts",
    "version": "0" * 12,
    "bundles": Path("/bundles"),
    "inputs": ("in.csv",),
    "input_format": "csv",
    "sink": "parquet",
    "columns": {"text": "text"},
    "id_column": None,
    "keep": (),
    "header": True,
    "request": {},
    "shard_rows": 4,
    "limit": None,
    "device": "cpu",
}


def job_of(output: Path, **changed: Any) -> Job:
    return Job(**{**FIELDS, "output": output, **changed})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "1" * 12),
        ("model", "other"),
        ("sink", "csv"),
        ("columns", {"text": "body"}),
        ("id_column", "id"),
        ("keep", ("*",)),
        ("header", False),
        ("request", {"top_k": 2}),
        ("shard_rows", 5),
        ("limit", 3),
        ("device", "cuda"),
        ("runtime", {"onnxruntime": "0"}),
    ],
)
def test_identity_covers_every_option_that_affects_the_output(field: str, value: Any) -> None:
    assert job_of(Path("/out")).identity() != job_of(Path("/out"), **{field: value}).identity()


@pytest.mark.parametrize("field", ["output", "bundles"])
def test_identity_ignores_folders(field: str) -> None:
    moved = Job(**{**FIELDS, "output": Path("/out"), field: Path("/elsewhere")})
    assert job_of(Path("/out")).identity() == moved.identity()


def test_job_round_trips_through_json() -> None:
    job = job_of(Path("/out"), request={"stop": ["x"]}, keep=("a", "b"))
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_invalid_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="shard_rows"):
        job_of(Path("/out"), shard_rows=0)


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", "") != digest("a")
