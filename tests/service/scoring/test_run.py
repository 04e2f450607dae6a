"""Every input and output format, resuming, and changed inputs."""

import base64
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.drift.distributions import input_key, prediction_key
from service.engine.sessions.model import Model
from service.scoring import execution
from service.scoring.engines.engine import EngineContext, EngineResult
from service.scoring.input.rows import Rows
from service.scoring.job import Job, ScoringError
from service.scoring.plan import SharedShard
from service.tasks.replay import answer_request_sync
from tests.service.distributions import distributions
from tests.service.scoring.conftest import Score, predictions, run_here, tree
from tests.service.scoring.inputs import FORMATS, images, items, requests, texts, write_csv, write_jsonl, write_parquet

ROWS = 40
MakeInput = Callable[[str, int], tuple[str, Path]]


def expected(family: str, model: Model, count: int) -> list[dict[str, Any]]:
    """The answer of the service to each row alone, as a row of the output."""
    rows = []
    for body in requests(family, items(family, count)):
        answer = answer_request_sync(model, body)
        match family:
            case "language-model":
                row = {**answer["completions"][0], "seed": answer["seed"]}
            case "image-generator":
                row = {"image": base64.b64decode(answer["images"][0]), "seed": answer["seed"]}
            case _:
                row = answer["predictions"][0]
                row.pop("top")
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", FORMATS)
def test_predictions_equal_the_answers_of_the_service(
    name: str, make_input: MakeInput, score: Score, models: dict[str, Model], tmp_path: Path
) -> None:
    family, source = make_input(name, ROWS)
    count = 8 if family in {"language-model", "image-generator"} else ROWS
    result = score(family, source, tmp_path / "out", limit=count)
    assert result.failures == ()
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (count, 0)
    rows = predictions(tmp_path / "out")
    assert [row.pop("row") for row in rows] == list(range(count))
    assert {row.pop("file") for row in rows} == {source.name}
    if name in {"folder", "tar", "tar-gzip"}:
        folders = [f"class{i // 20}" if name == "folder" else "pictures" for i in range(count)]
        assert [row.pop("name") for row in rows] == [f"{folder}/{i:05d}.png" for i, folder in enumerate(folders)]
    assert rows == expected(family, models[family], count)


def test_id_and_copied_columns_are_in_every_row(score: Score, tmp_path: Path) -> None:
    columns = {
        "id": [f"n{i}" for i in range(5)],
        "text": texts(5),
        "label": list("abcde"),
        "note": [1, None, {}, "x", 2],
    }
    source = write_jsonl(tmp_path / "in.jsonl", columns)
    score("text-classifier", source, tmp_path / "out", id_column="id", keep=("*",))
    rows = predictions(tmp_path / "out")
    assert [row["id"] for row in rows] == columns["id"]
    assert [row["input_label"] for row in rows] == columns["label"]
    assert [row["note"] for row in rows] == ["1", None, "{}", "x", "2"]
    assert "text" not in rows[0]


@pytest.mark.parametrize("sink", ["csv", "jsonl"])
def test_every_sink_holds_the_same_predictions(sink: str, make_input: MakeInput, score: Score, tmp_path: Path) -> None:
    family, source = make_input("jsonl-series", ROWS)
    for form in ("parquet", sink):
        result = score(family, source, tmp_path / form, output_format=form, request={"top_k": 2})
        assert result.failures == ()
    rows: list[dict[str, Any]] = []
    for part in sorted((tmp_path / sink / "predictions").iterdir()):
        if sink == "jsonl":
            rows += [json.loads(line) for line in part.read_text().splitlines()]
        else:
            with part.open(newline="") as file:
                rows += [
                    {**row, "row": int(row["row"]), "top": json.loads(row["top"]), "steps": json.loads(row["steps"])}
                    for row in csv.DictReader(file)
                ]
    parquet_rows = predictions(tmp_path / "parquet")
    assert [np.float32(row.pop("probability")) for row in rows] == [
        np.float32(row.pop("probability")) for row in parquet_rows
    ]
    assert rows == parquet_rows


def test_two_runs_write_equal_bytes_and_a_finished_job_does_nothing(
    make_input: MakeInput, score: Score, tmp_path: Path
) -> None:
    family, source = make_input("csv", ROWS)
    first = score(family, source, tmp_path / "a")
    second = score(family, source, tmp_path / "b")
    assert (first.computed, second.computed) == (ROWS, ROWS)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    again = score(family, source, tmp_path / "a")
    assert again.computed == 0
    assert again.summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == times


def test_rewritten_file_with_equal_bytes_is_not_scored_again(
    make_input: MakeInput, score: Score, tmp_path: Path
) -> None:
    family, source = make_input("csv", ROWS)
    score(family, source, tmp_path / "out")
    source.write_bytes(source.read_bytes())
    assert score(family, source, tmp_path / "out").computed == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"request": {"top_k": 2}}, "request"),
        ({"shard_rows": 7}, "shard_rows"),
        ({"keep": ("id",)}, "keep"),
        ({"output_format": "csv"}, "sink"),
        ({"limit": 3}, "limit"),
    ],
)
def test_folder_of_another_job_is_refused(
    change: dict[str, Any], named: str, make_input: MakeInput, score: Score, tmp_path: Path
) -> None:
    family, source = make_input("csv", ROWS)
    score(family, source, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ScoringError, match=f"another job .*{named} was"):
        score(family, source, tmp_path / "out", **change)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["a row changed", "a row appended", "a row removed"])
def test_changed_input_is_refused(change: str, make_input: MakeInput, score: Score, tmp_path: Path) -> None:
    family, source = make_input("csv", 33)
    score(family, source, tmp_path / "out")
    parts = {name: content for name, content in tree(tmp_path / "out").items() if name.startswith("predictions")}
    rows = {"a row changed": (33, 1), "a row appended": (34, 0), "a row removed": (32, 0)}[change]
    write_csv(source, {"id": range(rows[0]), "text": texts(rows[0], seed=rows[1])})
    with pytest.raises(ScoringError, match="the input changed"):
        score(family, source, tmp_path / "out")
    left = {name: content for name, content in tree(tmp_path / "out").items() if name.startswith("predictions")}
    assert left == parts


def csv_of(path: Path, *, changed: bool) -> Path:
    names = ("title", "body") if changed else ("body", "title")
    return write_csv(path.with_suffix(".csv"), dict(zip(names, (texts(33), texts(33, seed=1)), strict=True)))


def csv_without_header(path: Path, *, changed: bool) -> Path:
    """Only the first record changes: its number of fields, which every record must have."""
    path.with_suffix(".csv").write_text("a,b,c\n"[2 * changed :] + "".join(f"{text},x\n" for text in texts(32)))
    return path.with_suffix(".csv")


def parquet_of(path: Path, *, changed: bool) -> Path:
    names = ("title", "body") if changed else ("body", "title")
    columns = dict(zip(names, (texts(33), texts(33, seed=1)), strict=True))
    return write_parquet(path.with_suffix(".parquet"), columns, group=16)


def npy_of(path: Path, *, changed: bool) -> Path:
    np.save(path.with_suffix(".npy"), images(33).view(np.int8 if changed else np.uint8))
    return path.with_suffix(".npy")


def shaped_npy(path: Path, *, changed: bool) -> Path:
    np.save(path.with_suffix(".npy"), images(33).reshape((33, 16) if changed else (33, 4, 4)))
    return path.with_suffix(".npy")


def safetensors_of(path: Path, *, changed: bool) -> Path:
    save_file({"image": images(33).view(np.int8 if changed else np.uint8)}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def jsonl_of(path: Path, *, changed: bool) -> Path:
    """Only the first object changes: its keys, which are the columns that are copied for every row."""
    first, *others = ({"text": text, "note": "x"} for text in texts(33))
    rows = [{"text": first["text"], "remark": "x"} if changed else first, *others]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "case",
    [
        (csv_of, "text-classifier", {"columns": {"text": "body"}}),
        (csv_without_header, "text-classifier", {"columns": {"text": "0"}, "header": False}),
        (parquet_of, "text-classifier", {"columns": {"text": "body"}, "keep": ("title",)}),
        (npy_of, "image-classifier", {}),
        (shaped_npy, "image-classifier", {}),
        (safetensors_of, "image-classifier", {}),
        (jsonl_of, "text-classifier", {"keep": ("*",)}),
    ],
)
def test_changed_layout_of_equal_bytes_is_a_changed_input(
    case: tuple[Callable[..., Path], str, dict[str, Any]],
    finished: bool,
    score: Score,
    tmp_path: Path,
) -> None:
    (write, family, options), output = case, tmp_path / "out"
    source = write(tmp_path / "in", changed=False)
    score(family, source, output, **options)
    # As after a kill: some shards are committed, the first is not.
    if not finished:
        (output / "_ledger" / "done.json").unlink()
        (output / "_ledger" / "shards" / "00000-000000.json").unlink()
    before = {name: content for name, content in tree(output).items() if name.startswith("predictions/")}
    assert write(tmp_path / "in", changed=True) == source
    with pytest.raises(ScoringError, match=r"the input changed: shard 00000-00000[01] "):
        score(family, source, output, **options)
    after = {name: content for name, content in tree(output).items() if name.startswith("predictions/")}
    assert all(after[name] == content for name, content in before.items() if "000000." not in name)


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("option", ["workers", "shard_rows"])
def test_number_below_one_is_refused(
    option: str, number: int, make_input: MakeInput, score: Score, tmp_path: Path
) -> None:
    family, source = make_input("csv", 3)
    with pytest.raises(ScoringError, match=f"--{option.replace('_', '-')} {number}: expected at least 1"):
        score(family, source, tmp_path / "out", **{option: number})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("left", [0, 1, 20])
def test_job_fails_if_an_engine_skips_shards(
    left: int, make_input: MakeInput, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def skipping(
        jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
    ) -> EngineResult:
        return run_here(jobs, islice(shards, left), workers=workers, context=context)

    family, source = make_input("csv", 400)
    monkeypatch.setitem(execution.ENGINES, "skipping", skipping)
    found = f"holds {left} of .* planned shards and {left * 16} of .* planned rows"
    with pytest.raises(ScoringError, match=f"the job is not done: .* {found}"):
        score(family, source, tmp_path / "out", engine="skipping")
    assert not (tmp_path / "out" / "summary.json").exists()
    assert score(family, source, tmp_path / "out").computed == 400 - left * 16


def test_missing_ray_is_reported_with_its_dependency_group(
    make_input: MakeInput, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.scoring.engines.ray", None)
    family, source = make_input("csv", 3)
    with pytest.raises(ScoringError, match="needs the dependency group `ray`"):
        score(family, source, tmp_path / "out", engine="ray")


def test_lost_rows_fail_the_job(
    make_input: MakeInput, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make_input("csv", 40)
    before = Rows.numbered_below
    monkeypatch.setattr(Rows, "numbered_below", lambda rows, end: before(rows, end - 1))
    with pytest.raises(ScoringError, match=r"not done: .* holds 3 of 3 planned shards and 37 of 40 planned rows$"):
        score(family, source, tmp_path / "out")


def test_blank_lines_are_not_counted_as_rows(score: Score, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts(20)) + "\n\n \n")
    summary = score("text-classifier", tmp_path / "a.txt", tmp_path / "out").summary
    assert summary is not None
    assert summary["rows"] == 20


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_empty_first_file_is_skipped(suffix: str, score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a.{suffix}").touch()
    {"csv": write_csv, "jsonl": write_jsonl}[suffix](folder / f"b.{suffix}", {"text": texts(3)})
    summary = score("text-classifier", folder, tmp_path / "out").summary
    assert summary is not None
    assert summary["scored"] == 3


def test_request_fields_of_later_lines_are_honoured_or_rejected(score: Score, tmp_path: Path) -> None:
    lines = [{"prompt": "a"}, {"prompt": "a", "max_tokens": 2, "seed": 7}, {"prompt": "a", "temperature": "hot"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary = score("language-model", tmp_path / "a.jsonl", tmp_path / "out").summary
    assert summary is not None
    assert summary["rejected"] == 1
    assert [row["seed"] for row in predictions(tmp_path / "out")] == [0, 7]


def test_added_input_file_is_refused(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_csv(folder / "a.csv", {"text": texts(3)})
    score("text-classifier", folder, tmp_path / "out")
    write_csv(folder / "b.csv", {"text": texts(3)})
    with pytest.raises(ScoringError, match=r"inputs was \['a.csv'\], is \['a.csv', 'b.csv'\]"):
        score("text-classifier", folder, tmp_path / "out")


def test_summary_counts_labels_and_confidence(make_input: MakeInput, score: Score, tmp_path: Path) -> None:
    family, source = make_input("npy", ROWS)
    result = score(family, source, tmp_path / "out")
    rows = predictions(tmp_path / "out")
    assert result.summary is not None
    for label, count in result.summary["labels"].items():
        assert count == sum(row["label"] == label for row in rows)
    bins = np.histogram([row["probability"] for row in rows], bins=20, range=(0, 1))[0]
    assert result.summary["confidence"] == bins.tolist()
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == json.loads(json.dumps(result.summary))
    assert (tmp_path / "out" / "confidence.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FORMATS)
def test_the_summary_compares_every_format_with_the_distributions_in_the_bundle(
    name: str, make_input: MakeInput, score: Score, tmp_path: Path
) -> None:
    family, source = make_input(name, ROWS)
    generates = family in {"language-model", "image-generator"}
    result = score(family, source, tmp_path / "out", limit=8 if generates else ROWS)
    assert result.summary is not None
    drift = result.summary["drift"]
    assert (tmp_path / "out" / "drift.png").exists() == (drift is not None)
    if generates:
        assert drift is None
        assert "generates" in result.summary["drift_reason"]
        return
    names = {statistic["name"] for statistic in drift["statistics"]}
    # The tiny bundles were measured without texts.
    assert names == {input_key(one) for one in distributions(family).inputs} | {
        prediction_key(one) for one in distributions(family).predictions
    }
    assert {statistic["rows"] for statistic in drift["statistics"]} == {ROWS}


@pytest.mark.parametrize("shard_rows", [7, 100])
def test_drift_counts_the_rows_of_all_shards(shard_rows: int, score: Score, tmp_path: Path) -> None:
    pixels, known = images(ROWS) // 2, distributions("image-classifier")
    np.save(tmp_path / "a.npy", pixels)
    result = score("image-classifier", tmp_path / "a.npy", tmp_path / "out", shard_rows=shard_rows)
    assert result.summary is not None
    counts = {one["name"]: one["counts"] for one in result.summary["drift"]["statistics"]}
    # Pictures of 16 pixels are measured whole.
    mean = pixels.reshape(ROWS, -1).mean(axis=1)
    expected = np.histogram(mean, bins=[-np.inf, *known.inputs["brightness"].edges, np.inf])[0]
    assert counts["input brightness"] == expected.tolist()
    assert counts["predicted label"] == list(result.summary["labels"].values())
    assert counts["predicted confidence"] == result.summary["confidence"]


def test_many_rows_are_measured_evenly(score: Score, tmp_path: Path) -> None:
    pixels = images(3000)
    np.save(tmp_path / "a.npy", pixels)
    result = score("image-classifier", tmp_path / "a.npy", tmp_path / "out", shard_rows=3000)
    assert result.summary is not None
    rows = {one["name"]: one["rows"] for one in result.summary["drift"]["statistics"]}
    assert rows == {
        "input brightness": 1000,
        "input contrast": 1000,
        "predicted label": 3000,
        "predicted confidence": 3000,
    }
