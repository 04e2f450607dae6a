"""Passes of worker processes: kills, coordinators that share the work, failures, and results."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.scoring import execution
from service.scoring.__main__ import main
from service.scoring.output.ledger import Ledger
from service.scoring.plan import Shard
from service.scoring.result import JobFailedError
from tests.service.scoring.conftest import run_here, tree
from tests.service.scoring.inputs import images, texts, write_tar, write_text
from tests.service.scoring.passes.conftest import IMAGES, TEXTS, ScorePass

ROOT = Path(__file__).parents[4]
ScoreOne = Callable[..., Any]


def command(models: tuple[str, ...], source: Path, output: Path, bundles: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "service.scoring", "--bundles", str(bundles), "--device", "cpu", "--shard-rows", "16"),
        *("--input", str(source), "--output", str(output), "--workers", "2"),
        *(word for model in models for word in ("--model", model)),
        *more,
    ]


def records(output: Path) -> list[Path]:
    return list(output.glob("*/_ledger/shards/*.json"))


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_pass_resumes_to_the_bytes_of_the_jobs(
    seed: int, score_one: ScoreOne, pass_bundles: Path, tmp_path: Path
) -> None:
    rng, output = random.Random(seed), tmp_path / "out"
    source = write_tar(tmp_path / "pictures.tgz", images(1600))
    for name in IMAGES:
        score_one(name, source, tmp_path / name)
    job = subprocess.Popen(command(IMAGES, source, output, pass_bundles), cwd=ROOT, stdout=-3, stderr=-3)
    count = rng.randrange(1, 100)
    while job.poll() is None and len(records(output)) < count:
        time.sleep(0.002)
    workers = psutil.Process(job.pid).children()
    job.kill()
    for worker in workers[seed:]:
        worker.kill()
    job.wait()
    psutil.wait_procs(workers)
    done = {name: len(list((output / name / "_ledger" / "shards").glob("*.json"))) for name in IMAGES}
    assert sum(done.values()) < 200
    rest = subprocess.run(
        command(IMAGES, source, output, pass_bundles, "--json"), cwd=ROOT, stdout=-1, check=True, text=True
    )
    models = json.loads(rest.stdout)["models"]
    assert {name: models[name]["computed"] for name in IMAGES} == {name: 1600 - 16 * done[name] for name in IMAGES}
    for name in IMAGES:
        assert tree(output / name) == tree(tmp_path / name)


def test_two_coordinators_share_a_pass(score_one: ScoreOne, pass_bundles: Path, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(16 * 40))
    arguments = command(TEXTS, source, tmp_path / "out", pass_bundles, "--workers", "1", "--json")
    both = [subprocess.Popen(arguments, cwd=ROOT, stdout=-1, text=True) for _ in range(2)]
    found = [json.loads(job.communicate(timeout=240)[0])["models"] for job in both]
    for name in TEXTS:
        assert sum(models[name]["computed"] for models in found) == 16 * 40
        score_one(name, source, tmp_path / name)
        assert tree(tmp_path / "out" / name) == tree(tmp_path / name)


def test_a_failure_of_one_model_names_it_and_leaves_the_others_valid(
    score_pass: ScorePass, score_one: ScoreOne, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_text(tmp_path / "a.txt", texts(40))
    real = Ledger.commit

    def commit(ledger: Ledger, shard: Shard, record: Any, parts: Mapping[str, Path]) -> None:
        if Path(ledger.output.path).name == "other-texts" and shard.number == 1:
            raise OSError(28, "No space left on device")
        real(ledger, shard, record, parts)

    monkeypatch.setattr(Ledger, "commit", commit)
    with pytest.raises(JobFailedError, match=r"^other-texts [0-9a-f]{12}: shard 00000-000001 .*: OSError: No space"):
        score_pass(TEXTS, source, tmp_path / "out", check=True)
    assert [len(list((tmp_path / "out" / name / "_ledger" / "shards").iterdir())) for name in TEXTS] == [2, 1]
    monkeypatch.undo()
    monkeypatch.setitem(execution.ENGINES, "here", run_here)
    assert [result.computed for result in score_pass(TEXTS, source, tmp_path / "out").values()] == [8, 24]
    for name in TEXTS:
        score_one(name, source, tmp_path / name)
        assert tree(tmp_path / "out" / name) == tree(tmp_path / name)


def test_max_rejects_holds_for_each_model(score_pass: ScorePass, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", [*texts(19), "the " * 9])
    options = {"request": {"max_tokens": 2}}
    models = ("tiny-letters", "tiny-texts")
    with pytest.raises(JobFailedError, match=r"^tiny-texts: 1 of 20 rows were rejected, more than max_rejects=0 "):
        score_pass(models, source, tmp_path / "out", check=True, **options)
    results = score_pass(models, source, tmp_path / "out", check=True, max_rejects=0.05, **options)
    assert [result.to_table().num_rows for result in results.values()] == [20, 19]
    assert results["tiny-letters"].rejects == []


def test_progress_counts_the_rows_of_the_pass(score_pass: ScorePass, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", [*texts(39), "the " * 9])
    snapshots: list[Any] = []
    score_pass(TEXTS, source, tmp_path / "out", on_progress=snapshots.append)
    assert (snapshots[-1].rows, snapshots[-1].planned, snapshots[-1].rejected) == (40, 40, 1)


def test_a_lock_on_one_job_puts_the_whole_shard_off(
    score_pass: ScorePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_text(tmp_path / "a.txt", texts(20))
    tried: list[tuple[str, bool]] = []
    real = Ledger.try_lock

    def try_lock(ledger: Ledger, shard: Shard) -> bool:
        is_free = ledger.output.path.endswith("tiny-texts") and real(ledger, shard)
        tried.append((shard.name, is_free))
        return is_free

    monkeypatch.setattr(Ledger, "try_lock", try_lock)
    results = score_pass(TEXTS, source, tmp_path / "out")
    assert tried == [("00000-000000", True), ("00000-000000", False), ("00000-000001", True), ("00000-000001", False)]
    assert [result.computed for result in results.values()] == [0, 0]
    monkeypatch.undo()
    monkeypatch.setitem(execution.ENGINES, "here", run_here)
    assert [result.computed for result in score_pass(TEXTS, source, tmp_path / "out").values()] == [20, 20]


def test_the_command_prints_each_model(
    pass_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(execution.ENGINES, "local", run_here)
    source = write_text(tmp_path / "a.txt", [*texts(19), "the " * 9])
    arguments = ["--bundles", str(pass_bundles), "--device", "cpu", "--input", str(source)]
    arguments += ["--output", str(tmp_path / "out"), "--model", "tiny-texts", "--model", "other-texts"]
    assert main(arguments) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(tmp_path / "out" / name) for name in TEXTS]
    assert all("20 rows in" in line and "19 scored, 1 rejected by" in line for line in lines)
    assert main([*arguments, "--json", "--max-rejects", "0.05"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert {name: (models[name]["model"], models[name]["computed"]) for name in models} == {
        name: (name, 0) for name in TEXTS
    }
    (tmp_path / "out" / "tiny-texts" / "predictions" / "part-00000-000000.parquet").unlink()
    write_text(tmp_path / "a.txt", texts(20, seed=1))
    assert main([*arguments, "--json"]) == 1
    assert "the input changed" in json.loads(capsys.readouterr().out)["failures"][0]
