"""Defaults and checks of the options of a job."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.scoring.input.files import list_files
from service.scoring.job import Job, ScoringError
from service.scoring.job_options import SEQUENCE_SHARD_ROWS, SHARD_ROWS, resolve_job
from service.scoring.model import read_manifest, resolve_version
from tests.service.bundles import FAMILIES, NAMES, PAIRS
from tests.service.scoring.conftest import Score, predictions, rejects
from tests.service.scoring.inputs import FIELD, images, items, write_folder, write_jsonl

OPTIONS: dict[str, Any] = {
    "sink": "jsonl",
    "columns": {},
    "id_column": None,
    "keep": (),
    "header": True,
    "request": {},
    "shard_rows": None,
    "limit": None,
    "device": "cpu",
}


def resolve(bundles: Path, source: Path, family: str, *, input_format: Any = None, **options: Any) -> Job:
    files = list_files([str(source)], output=source.parent / "out", input_format=input_format)
    manifest = read_manifest(bundles, *resolve_version(NAMES[family], bundles))
    folders: dict[str, Any] = {"bundles": bundles, "inputs": (str(source),), "output": source.parent / "out"}
    return resolve_job(manifest, files, **{**OPTIONS, **folders, **options})


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_follow_from_the_family_and_the_first_file(family: str, served_bundles: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", {FIELD[family]: items(family, 2)})
    job = resolve(served_bundles, source, family)
    assert job.columns[FIELD[family]] == FIELD[family]
    assert job.input_format == "jsonl"
    assert job.shard_rows == SHARD_ROWS.get(PAIRS[family], SEQUENCE_SHARD_ROWS)
    assert resolve(served_bundles, source, family, shard_rows=7).shard_rows == 7


def test_id_of_an_openai_batch_is_its_custom_id(served_bundles: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", {"custom_id": ["a"], "body": [{"prompt": "a"}]})
    job = resolve(served_bundles, source, "language-model", input_format="openai")
    assert job.id_column == "custom_id"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_column": "key"}, "no column 'key' in in.csv; available: 'text'"),
        ({"keep": ("note",)}, "no column 'note' in in.csv; available: 'text'"),
        ({"limit": -1}, "option limit: .* got -1"),
        ({"request": {"seed": 1}}, "--set seed: the options of a model text -> labels are top_k, truncate"),
    ],
)
def test_invalid_option_is_reported_by_name(
    options: dict[str, Any], message: str, served_bundles: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\nthe train\n")
    with pytest.raises(ScoringError, match=message):
        resolve(served_bundles, tmp_path / "in.csv", "text-classifier", **options)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_picture_is_named_in_predictions_and_rejects(kind: str, score: Score, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures", images(3))
    (folder / "class0" / "00003.png").write_bytes(b"no picture")
    (folder / "notes.md").write_text("no picture either")
    source = folder
    if kind == "tar":
        source = tmp_path / "pictures.tar"
        with tarfile.open(source, "w") as archive:
            archive.add(folder, arcname="")
    result = score("image-classifier", source, tmp_path / "out")
    assert [row["name"] for row in predictions(tmp_path / "out")] == [f"class0/0000{i}.png" for i in range(3)]
    assert [row["name"] for row in rejects(tmp_path / "out")] == ["class0/00003.png"]
    assert result.summary is not None
    assert result.summary["passed_over"] == {".md": 1}
