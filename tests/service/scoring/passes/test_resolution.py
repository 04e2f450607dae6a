"""Which options reach which model of a pass, and what a pass refuses before a row is read."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.scoring.job import ScoringError
from service.scoring.passes import resolution
from service.scoring.passes.resolution import resolve_jobs
from tests.service.bundles import write_bundle
from tests.service.scoring.conftest import predictions, tree
from tests.service.scoring.inputs import images, texts, write_csv, write_folder, write_text
from tests.service.scoring.passes.conftest import IMAGES, TEXTS, ScorePass
from tests.service.scoring.sources.text.test_openai import line as openai_line
from tests.service.scoring.sources.text.test_openai import write as write_openai

LETTERS = ("tiny-texts", "tiny-letters")
OPTIONS: dict[str, Any] = {
    "input_format": None,
    "query": None,
    "output_format": None,
    "columns": {},
    "id_column": None,
    "keep": (),
    "partition_by": (),
    "append_to": None,
    "new_only": False,
    "header": True,
    "delimiter": None,
    "quote": None,
    "escape": None,
    "encoding": None,
    "request": {},
    "shard_rows": None,
    "limit": None,
    "verify": False,
    "device": "cpu",
    "workers": None,
}


def test_options_reach_the_models_that_have_them(pass_bundles: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", {"body": texts(3), "start": texts(3), "n": [1, 2, 3]})
    options = {
        "columns": {"text": "body", "prompt": "start", "seed": "n"},
        "request": {"top_k": 2, "max_tokens": 4, "truncate": True},
    }
    jobs = resolve_jobs(LETTERS, [str(source)], pass_bundles, output=tmp_path / "out", **{**OPTIONS, **options})
    assert [one.name for one in jobs] == list(LETTERS)
    assert [one.job.columns for one in jobs] == [{"text": "body"}, {"prompt": "start", "seed": "n"}]
    assert [one.job.request for one in jobs] == [{"top_k": 2, "truncate": True}, {"top_k": 2, "max_tokens": 4}]
    assert [one.job.output for one in jobs] == [str(tmp_path / "out" / name) for name in LETTERS]


@pytest.mark.parametrize(("given", "expected"), [(None, 64), (7, 7)])
def test_a_shard_has_the_fewest_rows_of_the_defaults(
    given: int | None, expected: int, pass_bundles: Path, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(3))
    options = {**OPTIONS, "shard_rows": given}
    jobs = resolve_jobs(LETTERS, [str(source)], pass_bundles, output=tmp_path / "out", **options)
    assert [one.job.shard_rows for one in jobs] == [expected, expected]


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (TEXTS, {"columns": {"prompt": "text"}}, "--column prompt=…: no model has this field; the fields are text$"),
        (LETTERS, {"request": {"beam": 2}}, "--set beam: no model has this option; the options are logprobs, max_"),
        (LETTERS, {"request": {"top_k": 0}}, "--model tiny-texts: --set top_k"),
        (("tiny-texts", "tiny-images"), {}, "--model tiny-images: cannot tell which column holds the image"),
        ((*TEXTS, "nothing"), {}, "--model nothing: no such bundle"),
        (TEXTS, {"new_only": True}, "--new-only: takes one model: score each of "),
        (TEXTS, {"append_to": "table"}, "--append-to: takes one model: score each of "),
        (("tiny-texts", "tiny-texts"), {}, "--model tiny-texts@[0-9a-f]{12}: given twice"),
        ((), {}, "--model: expected at least one model"),
    ],
)
def test_what_no_model_can_do_is_refused(
    models: tuple[str, ...], options: dict[str, Any], message: str, score_pass: ScorePass, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "a.csv", {"text": texts(3), "id": range(3)})
    with pytest.raises(ScoringError, match=message):
        score_pass(models, source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_openai_batch_has_one_model(score_pass: ScorePass, tmp_path: Path) -> None:
    source = write_openai(tmp_path / "a.jsonl", [openai_line("a", prompt="ab", max_tokens=2)])
    with pytest.raises(ScoringError, match="--model tiny-chat: an OpenAI batch is answered by one model"):
        score_pass(("tiny-letters", "tiny-chat"), source, tmp_path / "out")


def test_a_query_is_asked_once(score_pass: ScorePass, score_one: Any, tmp_path: Path) -> None:
    database = tmp_path / "news.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE news (id INTEGER, text TEXT)")
        connection.executemany("INSERT INTO news VALUES (?, ?)", enumerate(texts(40)))
    options = {"query": "SELECT id, text FROM news ORDER BY id", "id_column": "id"}
    score_pass(TEXTS, f"sqlite:///{database}", tmp_path / "out", **options)
    before = tree(tmp_path / "out")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM news")
    for name in TEXTS:
        assert len(predictions(tmp_path / "out" / name)) == 40
        assert score_one(name, f"sqlite:///{database}", tmp_path / "out" / name, **options).computed == 0
    assert tree(tmp_path / "out") == before
    score_one("tiny-texts", f"sqlite:///{database}", tmp_path / "mixed" / "tiny-texts", **options)
    score_pass(TEXTS, f"sqlite:///{database}", tmp_path / "mixed", **options)
    (tmp_path / "out" / "tiny-texts").rename(tmp_path / "moved")
    with pytest.raises(ScoringError, match="holds another result of the query than"):
        score_pass(TEXTS, f"sqlite:///{database}", tmp_path / "out", **options)


def test_images_of_a_folder_are_scored_into_it(score_pass: ScorePass, tmp_path: Path) -> None:
    """The outputs lie below the input, and are no input."""
    write_folder(tmp_path / "in", images(5))
    for _ in range(2):
        results = score_pass(IMAGES, tmp_path / "in", tmp_path / "in" / "scored")
        assert [result.summary and result.summary["passed_over"] for result in results.values()] == [{}, {}]


@pytest.mark.parametrize(("models", "allowed"), [(["a-tf32"], True), (["a-tf32", "b-fp16"], False)])
def test_a_pass_allows_tf32_if_all_its_models_do(
    models: list[str], allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a-tf32", "b-fp16"):
        precision = {"kind": name[2:], "parent": f"tiny/{'0' * 12}", "items": 1, "agreement": 1.0}
        write_bundle(tmp_path / "bundles", "text-classifier", name=name, precision=precision)
    calls: list[tuple[str, bool]] = []

    def resolve(setting: str, *, allow_tf32: bool) -> str:
        calls.append((setting, allow_tf32))
        return "cuda"

    monkeypatch.setattr(resolution, "resolve_device", resolve)
    source = write_text(tmp_path / "a.txt", texts(3))
    options = {**OPTIONS, "device": "auto"}
    jobs = resolve_jobs(models, [str(source)], tmp_path / "bundles", output=tmp_path / "out", **options)
    assert [one.job.device for one in jobs] == ["cuda"] * len(models)
    assert calls == [("auto", allowed)]
