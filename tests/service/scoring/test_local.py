"""Processes that are killed, and two that want the same."""

import contextlib
import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.scoring import run
from service.scoring.job import ScoringError
from service.scoring.local import cores, run_local
from service.scoring.progress import Bar
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, predictions, tree
from tests.service.scoring.test_job import job_of

ROOT = Path(__file__).parents[3]
Make = Callable[[str, int], tuple[str, Path]]


def command(family: str, source: Path, output: Path, bundles: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "service.scoring", "--model", NAMES[family], "--bundles", str(bundles)),
        *("--input", str(source), "--output", str(output), "--shard-rows", "16", "--workers", "2", "--device", "cpu"),
        *more,
    ]


def wait_for_parts(output: Path, job: "subprocess.Popen[bytes]", count: int) -> None:
    while job.poll() is None and len(list((output / "_ledger" / "shards").glob("*.json"))) < count:
        time.sleep(0.002)


def test_a_job_with_workers_writes_what_one_process_writes(
    make: Make, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make("csv", 100)
    score(family, source, tmp_path / "here")
    subprocess.run(command(family, source, tmp_path / "out", served_bundles), cwd=ROOT, check=True, stdout=-3)
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


@pytest.mark.parametrize("victim", ["coordinator", "worker", "all"])
def test_a_killed_job_goes_on_where_it_ended(
    victim: str, make: Make, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make("text-gzip", 1600)
    output = tmp_path / "out"
    score(family, source, tmp_path / "here")
    rng = random.Random(victim)
    job = subprocess.Popen(command(family, source, output, served_bundles), cwd=ROOT, stdout=-3, stderr=-3)
    wait_for_parts(output, job, rng.randrange(1, 30))
    workers = psutil.Process(job.pid).children()
    assert len(workers) == 2
    if victim != "worker":
        job.kill()
    if victim != "coordinator":
        for worker in workers[: 1 if victim == "worker" else 2]:
            worker.kill()
    job.wait()
    psutil.wait_procs(workers)  # orphans end by themselves, after the shard at hand
    wanted = tree(tmp_path / "here")
    for name, content in tree(output).items():
        assert not name.startswith("predictions") or content == wanted[name]
    done = sum(json.loads(path.read_bytes())["scored"] for path in (output / "_ledger" / "shards").glob("*.json"))
    rest = score(family, source, output)
    assert rest.failures == ()
    assert rest.computed == 1600 - done
    assert tree(output) == wanted


@pytest.mark.parametrize("more", [0, 1])
def test_a_worker_for_every_core_stays_on_its_own(
    more: int, make: Make, served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make("csv", 100)
    own = os.sched_getaffinity(0)
    others = psutil.Process().children()  # of other tests
    seen: dict[int, list[int]] = {}  # of each worker, when it was last there

    def done(bar: Bar, rows: int, rejects: int) -> None:
        for worker in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it had no more to do, and left
                if worker not in others:
                    seen[worker.pid] = worker.cpu_affinity()  # type: ignore[assignment]

    monkeypatch.setattr(Bar, "done", done)
    count = len(own) + more
    run.score(NAMES[family], [source], tmp_path / "out", bundles=served_bundles, device="cpu", workers=count)
    assert sorted(seen.values()) == (sorted([core] for core in own) if not more else [sorted(own)] * count)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.ESRCH])
def test_a_worker_that_cannot_be_kept_on_a_core_works_all_the_same(
    code: int, make: Make, served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make("csv", 20)
    refused = []

    def refuse(pid: int, places: set[int]) -> None:
        refused.append(places)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.sched_setaffinity", refuse)
    count = len(os.sched_getaffinity(0))
    result = run.score(NAMES[family], [source], tmp_path / "out", bundles=served_bundles, device="cpu", workers=count)
    assert (result.failures, result.computed, len(refused)) == ((), 20, count)


def test_two_jobs_on_one_folder_share_the_work(make: Make, score: Score, served_bundles: Path, tmp_path: Path) -> None:
    family, source = make("text", 800)
    score(family, source, tmp_path / "here")
    both = [
        subprocess.Popen(
            command(family, source, tmp_path / "out", served_bundles, "--workers", "1", "--json"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for job in both:
        job.communicate(timeout=120)
        assert job.returncode == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
    assert len(predictions(tmp_path / "out")) == 800


def test_a_bundle_that_is_gone_stops_the_job_with_a_sentence(
    make: Make, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    _, source = make("csv", 3)
    with pytest.raises(ScoringError, match="expected one version, found none"):
        run.score("tiny-texts@000000000000", [source], tmp_path / "out", bundles=served_bundles)


def test_a_worker_that_cannot_start_fails_the_job(served_bundles: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", bundles=tmp_path / "nowhere")
    outcome = run_local(job, iter(()), workers=1, report=Bar("", shown=False))
    assert outcome.stopped
    assert outcome.failures[0].startswith("a worker cannot start: tiny-texts/")


@pytest.mark.parametrize(("text", "count"), [("max 100000", 99), ("150000 100000", 1), ("50000 100000", 1), ("", 99)])
def test_workers_are_as_many_as_the_container_may_use(
    text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(99)))
    (tmp_path / "cpu.max").write_text(text)
    assert cores(tmp_path / "cpu.max") == count
    assert cores(tmp_path / "nothing") == 99
