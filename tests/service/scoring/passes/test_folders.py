"""The folders of the jobs of a pass: their names, and who may write there."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.scoring.job import ScoringError
from service.scoring.passes.folders import check_holds_no_job, job_names, subfolders
from service.scoring.storage.location import parse_location
from service.scoring.watch.status import main as show_status
from tests.service.scoring.conftest import tree
from tests.service.scoring.inputs import texts, write_text
from tests.service.scoring.object_server import ObjectServer
from tests.service.scoring.passes.conftest import TEXTS, ScorePass

VERSIONS = ("0" * 12, "1" * 12)


def test_a_job_has_the_name_of_its_model() -> None:
    assert job_names([("a", VERSIONS[0]), ("b", VERSIONS[0])]) == ["a", "b"]
    assert job_names([("a", VERSIONS[0]), ("b", VERSIONS[0]), ("a", VERSIONS[1])]) == [
        f"a@{VERSIONS[0]}",
        "b",
        f"a@{VERSIONS[1]}",
    ]
    with pytest.raises(ScoringError, match=f"--model a@{VERSIONS[0]}: given twice"):
        job_names([("a", VERSIONS[0])] * 2)


def test_a_pass_does_not_write_into_the_output_of_one_job(
    score_pass: ScorePass, score_one: Any, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(5))
    score_one("tiny-texts", source, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ScoringError, match="out belongs to a job of one model, and several models write to folders"):
        score_pass(TEXTS, source, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    check_holds_no_job(parse_location(str(tmp_path / "other"), option="--output"))
    score_pass(TEXTS, source, tmp_path / "other")
    with pytest.raises(ScoringError, match=r"other is not empty \((tiny|other)-texts\) and holds no scoring job"):
        score_one("tiny-texts", source, tmp_path / "other")


def test_two_versions_of_a_model_have_folders_of_their_own(
    score_pass: ScorePass, score_one: Any, pass_bundles: Path, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(20))
    versions = sorted(path.name for path in (pass_bundles / "other-texts").iterdir() if path.is_dir())
    names = [f"other-texts@{version}" for version in versions]
    results = score_pass([f"other-texts@{version[:6]}" for version in versions], source, tmp_path / "out")
    assert list(results) == names
    for name in names:
        score_one(name, source, tmp_path / name)
        assert tree(tmp_path / "out" / name) == tree(tmp_path / name)


def test_status_shows_each_job(score_pass: ScorePass, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_text(tmp_path / "a.txt", texts(40))
    score_pass(TEXTS, source, tmp_path / "out")
    assert show_status([str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.partition(" ")[0] for line in lines if "finished" in line]
    assert heads == [f"{tmp_path}/out/{name}:" for name in sorted(TEXTS)]
    assert lines.count("rows       40 of 40 committed in 3 shards") == 2
    (tmp_path / "out" / "tiny-texts" / "_ledger" / "done.json").unlink()
    assert show_status([str(tmp_path / "out"), "--json"]) == 1
    states = json.loads(capsys.readouterr().out)["models"]
    assert {name: state["state"] for name, state in states.items()} == {
        "other-texts": "finished",
        "tiny-texts": "stopped",
    }
    assert show_status([str(tmp_path / "out" / "other-texts")]) == 0


def test_an_object_store_holds_the_same_files(
    score_pass: ScorePass, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_text(tmp_path / "a.txt", texts(40))
    score_pass(TEXTS, source, tmp_path / "out")
    results = score_pass(TEXTS, source, server.uri("out"))
    assert [result.failures for result in results.values()] == [(), ()]
    place = parse_location(server.uri("out"), option="--output")
    assert list(subfolders(place)) == sorted(TEXTS)
    assert show_status([server.uri("out"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["models"]) == set(TEXTS)
    local, stored = tree(tmp_path / "out"), server.tree("out")
    assert {name: stored[name] for name in local if "/predictions/" in name} == {
        name: content for name, content in local.items() if "/predictions/" in name
    }
