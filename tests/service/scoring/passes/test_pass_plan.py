"""Each job of a pass has the plan and writes the bytes that it would have alone, while the input is read once."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.scoring import shard
from service.scoring.input.files import list_files
from service.scoring.input.rows import Rows, Span
from service.scoring.passes.pass_plan import plan_pass
from service.scoring.plan import PlannedFile, ReadError, SharedShard, plan
from service.scoring.result import Result
from service.scoring.scorers import images as image_scorer
from service.scoring.scorers import sequences
from service.scoring.sources import parquet
from tests.service.scoring.conftest import predictions, rejects, tree
from tests.service.scoring.inputs import (
    FORMATS,
    images,
    png,
    prompts,
    texts,
    write_csv,
    write_folder,
    write_jsonl,
    write_parquet,
    write_text,
)
from tests.service.scoring.passes.conftest import IMAGES, TEXTS, ScorePass
from tests.service.scoring.test_job import job_of

ScoreOne = Callable[..., Result]
ROWS = 40
MODELS = {"image-classifier": IMAGES, "text-classifier": TEXTS}
LETTERS = ("tiny-texts", "tiny-letters")


@pytest.fixture
def score_both(score_pass: ScorePass, score_one: ScoreOne, tmp_path: Path) -> ScorePass:
    """Score a pass, and each model in a job of its own, and compare every byte; `requests` has the fields of each."""

    def score_both(
        models: Sequence[str], source: Any, *, requests: Mapping[str, dict[str, Any]] | None = None, **options: Any
    ) -> dict[str, Result]:
        requests = requests or {}
        request = {field: value for fields in requests.values() for field, value in fields.items()}
        results = score_pass(models, source, tmp_path / "pass", request=request, **options)
        assert list(results) == list(models)
        for name, result in results.items():
            single = score_one(name, source, tmp_path / name, request=requests.get(name, {}), **options)
            assert result.failures == single.failures == ()
            assert (result.summary, result.computed) == (single.summary, single.computed)
            assert tree(tmp_path / "pass" / name) == tree(tmp_path / name)
        return results

    return score_both


@pytest.mark.parametrize("name", [name for name, (family, _) in FORMATS.items() if family in MODELS])
def test_a_pass_writes_what_each_job_writes(name: str, score_both: ScorePass, tmp_path: Path) -> None:
    family, write = FORMATS[name]
    results = score_both(MODELS[family], write(tmp_path, ROWS))
    assert [result.computed for result in results.values()] == [ROWS, ROWS]
    first, second = (predictions(tmp_path / "pass" / model) for model in MODELS[family])
    assert [row["row"] for row in first] == [row["row"] for row in second]
    assert [row["label"] for row in first] != [row["label"] for row in second]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_models_of_different_tasks_read_the_same_rows(suffix: str, score_both: ScorePass, tmp_path: Path) -> None:
    """Row 20 has too many words for the first; the second takes every row, and columns that the first does not read."""
    write: Callable[..., Path] = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}[suffix]
    rows = [*texts(20), "the " * 9, *prompts(20)]
    columns = {"id": list(range(41)), "text": rows, "seed": [i // 9 for i in range(41)]}
    source = write(tmp_path / f"a.{suffix}", columns)
    requests = {"tiny-texts": {"top_k": 2}, "tiny-letters": {"top_k": 2, "max_tokens": 3}}
    score_both(LETTERS, source, requests=requests, id_column="id")
    assert [str(row["id"]) for row in rejects(tmp_path / "pass" / "tiny-texts")] == ["20"]
    assert len(predictions(tmp_path / "pass" / "tiny-letters")) == 41


@pytest.mark.parametrize("options", [{"where": "id >= 7"}, {"sample": 0.5}, {"limit": 21}, {"keep": ("*",)}])
@pytest.mark.parametrize("models", [TEXTS, LETTERS])
def test_options_hold_for_each_job(
    models: tuple[str, str], options: dict[str, Any], score_both: ScorePass, tmp_path: Path
) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"id": list(range(ROWS)), "text": texts(ROWS)}, group=30)
    score_both(models, source, requests={"tiny-letters": {"max_tokens": 2}} if models == LETTERS else None, **options)


def test_shards_of_other_boundaries_are_scored_apart(
    score_both: ScorePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are larger than texts, so that the shards of a model that reads them have fewer rows."""
    monkeypatch.setattr(parquet, "SHARD_BYTES", 1000)
    columns = {"text": texts(120), "image": [png(image) for image in images(120)]}
    source = write_parquet(tmp_path / "a.parquet", columns, group=60)
    score_both(("tiny-texts", "tiny-images"), source)
    shards = [len(list((tmp_path / name / "predictions").iterdir())) for name in ("tiny-texts", "tiny-images")]
    assert shards[1] > shards[0] > 1


def test_each_plan_is_that_of_its_job_and_equal_rows_are_shared(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    columns = {"id": range(10), "text": texts(10), "body": texts(10, seed=1)}
    for name in ("a.csv", "b.csv.gz", "c.csv"):
        write_csv(tmp_path / "in" / name, columns)
    path = tmp_path / "in" / "b.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    files = list_files([str(tmp_path / "in")], output=tmp_path / "out", input_format=None)
    jobs = [
        job_of(tmp_path / "0"),
        job_of(tmp_path / "1", model="other"),
        job_of(tmp_path / "2", columns={"text": "body"}),
    ]
    planned = list(plan_pass(jobs, files))
    shared = [item for item in planned if isinstance(item, SharedShard)]
    assert [tuple(item.shards) for item in shared] == [(0, 1, 2)] * 6
    assert [item.jobs for item in planned if isinstance(item, PlannedFile)] == [(0, 1), (2,)] * 2
    assert {item.file.name for item in planned if isinstance(item, PlannedFile)} == {"a.csv", "c.csv"}
    assert len([item for item in planned if isinstance(item, ReadError)]) == 2
    for number, job in enumerate(jobs):
        single = [item.first for item in plan({0: job}, files) if isinstance(item, SharedShard)]
        assert [item.shards[number] for item in shared] == single
    assert len({one.key for item in shared for one in item.shards.values()}) == 18


def count_calls(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> Counter[str]:
    calls, real = Counter[str](), getattr(place, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, counted)
    return calls


def test_images_are_read_and_decoded_once(
    score_pass: ScorePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "pictures", images(ROWS))
    decoded = count_calls(monkeypatch, image_scorer, "read_image")
    read: list[Span] = []
    real = shard.SOURCES["images"].read

    def counted(self: Any, span: Span) -> Iterator[Rows]:
        read.append(span)
        return real(self, span)

    monkeypatch.setattr(shard.SOURCES["images"], "read", counted)
    results = score_pass(IMAGES, source, tmp_path / "out")
    assert [result.computed for result in results.values()] == [ROWS, ROWS]
    assert (decoded["read_image"], len(read)) == (ROWS, 3)


def test_texts_are_tokenized_once_by_equal_tokenizers(
    score_pass: ScorePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch, sequences, "encode_each")
    source = write_text(tmp_path / "a.txt", texts(ROWS))
    score_pass((*TEXTS, "tiny-letters"), source, tmp_path / "out", request={"max_tokens": 2})
    assert calls["encode_each"] == 3


def test_a_shard_is_scored_for_the_jobs_that_have_not_committed_it(
    score_pass: ScorePass, score_one: ScoreOne, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(ROWS))
    expected = {}
    for name in TEXTS:
        score_one(name, source, tmp_path / name)
        expected[name] = tree(tmp_path / name)
    score_one("other-texts", source, tmp_path / "out" / "other-texts", limit=None)
    assert [result.computed for result in score_pass(TEXTS, source, tmp_path / "out").values()] == [ROWS, 0]
    for name in TEXTS:
        assert tree(tmp_path / "out" / name) == expected[name]
        assert score_one(name, source, tmp_path / "out" / name).computed == 0
    ledgers = [tmp_path / "out" / name / "_ledger" for name in TEXTS]
    for ledger, number in zip(ledgers, (0, 2), strict=True):
        (ledger / "done.json").unlink()
        (ledger / "shards" / f"00000-00000{number}.json").unlink()
    assert [result.computed for result in score_pass(TEXTS, source, tmp_path / "out").values()] == [16, 8]
    assert [tree(tmp_path / "out" / name) for name in TEXTS] == list(expected.values())
