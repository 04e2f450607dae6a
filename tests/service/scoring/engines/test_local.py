"""Worker processes: kills, pinning, and two jobs on one folder."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.scoring import run
from service.scoring.engines.engine import Cancellation, EngineContext
from service.scoring.engines.local import run_local
from service.scoring.job import ScoringError
from service.scoring.progress import Progress
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, predictions, tree
from tests.service.scoring.test_job import job_of

ROOT = Path(__file__).parents[4]
MakeInput = Callable[[str, int], tuple[str, Path]]


def command(family: str, source: Path, output: Path, bundles: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "service.scoring", "--model", NAMES[family], "--bundles", str(bundles)),
        *("--input", str(source), "--output", str(output), "--shard-rows", "16", "--workers", "2", "--device", "cpu"),
        *more,
    ]


def context_of(cancel: threading.Event | None = None, *, grace_s: float = 20.0) -> EngineContext:
    return EngineContext(
        progress=Progress(), message=print, cancellation=Cancellation(cancel or threading.Event(), grace_s)
    )


def wait_for_parts(output: Path, job: "subprocess.Popen[Any]", count: int) -> None:
    while job.poll() is None and len(list((output / "_ledger" / "shards").glob("*.json"))) < count:
        time.sleep(0.002)


def test_workers_write_the_same_bytes_as_one_process(
    make_input: MakeInput, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("csv", 100)
    score(family, source, tmp_path / "here")
    subprocess.run(command(family, source, tmp_path / "out", served_bundles), cwd=ROOT, check=True, stdout=-3)
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


@pytest.mark.parametrize("victim", ["coordinator", "worker", "all"])
def test_killed_job_resumes_and_computes_only_what_is_missing(
    victim: str, make_input: MakeInput, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text-gzip", 1600)
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
    # Workers without a coordinator end on their own, after the shard that they are scoring.
    psutil.wait_procs(workers)
    expected = tree(tmp_path / "here")
    for name, content in tree(output).items():
        assert not name.startswith("predictions") or content == expected[name]
    done = sum(json.loads(path.read_bytes())["scored"] for path in (output / "_ledger" / "shards").glob("*.json"))
    rest = score(family, source, output)
    assert rest.failures == ()
    assert rest.computed == 1600 - done
    assert tree(output) == expected


@pytest.mark.parametrize("more", [0, 1])
def test_workers_are_pinned_if_there_is_one_per_core(
    more: int, make_input: MakeInput, served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make_input("csv", 6000)
    allowed = os.sched_getaffinity(0)
    other_children = psutil.Process().children()
    affinity: dict[int, list[int]] = {}

    def add_done(progress: Progress, rows: int, rejects: int) -> None:
        for worker in psutil.Process().children():
            # A worker ends as soon as it has no more to do.
            with contextlib.suppress(psutil.NoSuchProcess):
                if worker not in other_children:
                    affinity[worker.pid] = worker.cpu_affinity()  # type: ignore[assignment]

    monkeypatch.setattr(Progress, "add_done", add_done)
    count = len(allowed) + more
    run.score(
        NAMES[family], [source], tmp_path / "out", bundles=served_bundles, device="cpu", workers=count, shard_rows=16
    )
    assert sorted(affinity.values()) == (sorted([core] for core in allowed) if not more else [sorted(allowed)] * count)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.ESRCH])
def test_worker_runs_if_pinning_fails(
    code: int, make_input: MakeInput, served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make_input("csv", 20)
    refused = []

    def fail(pid: int, cores: set[int]) -> None:
        refused.append(cores)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.sched_setaffinity", fail)
    count = len(os.sched_getaffinity(0))
    result = run.score(NAMES[family], [source], tmp_path / "out", bundles=served_bundles, device="cpu", workers=count)
    assert (result.failures, result.computed, len(refused)) == ((), 20, count)


def test_two_jobs_on_one_folder_share_the_work(
    make_input: MakeInput, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text", 800)
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


def test_two_coordinators_each_score_a_good_part_and_no_row_twice(
    make_input: MakeInput, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text", 16 * 400)
    output, both = tmp_path / "out", []
    for parts in (1, 20):  # the first one waits until the second one has started, too
        job = subprocess.Popen(
            command(family, source, output, served_bundles, "--workers", "1", "--json"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for_parts(output, job, parts)
        if not both:
            os.killpg(job.pid, signal.SIGSTOP)
        both.append(job)
    os.killpg(both[0].pid, signal.SIGCONT)
    computed = [json.loads(job.communicate(timeout=120)[0])["computed"] for job in both]
    assert sum(computed) == 16 * 400
    assert min(computed) > 16 * 400 / 8


@pytest.mark.parametrize("grace_s", [20.0, 0.0])
def test_a_terminated_job_says_so_and_resumes_to_the_same_bytes(
    grace_s: float, make_input: MakeInput, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text-gzip", 6400)
    output = tmp_path / "out"
    job = subprocess.Popen(
        command(family, source, output, served_bundles, "--grace-s", str(grace_s)),
        cwd=ROOT,
        stdout=-3,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_parts(output, job, 5)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 143, errors
    assert "terminated after" in errors
    assert "the same command resumes the job" in errors
    if grace_s:
        assert "dropped" not in errors
    done = sum(json.loads(path.read_bytes())["scored"] for path in (output / "_ledger" / "shards").glob("*.json"))
    assert 0 < done < 6400
    assert score(family, source, output).computed == 6400 - done
    score(family, source, tmp_path / "here")
    assert tree(output) == tree(tmp_path / "here")


def test_input_that_changes_ends_the_job_at_once_with_one_line(
    make_input: MakeInput, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text", 16 * 600)
    output = tmp_path / "out"
    job = subprocess.Popen(
        command(family, source, output, served_bundles), cwd=ROOT, stdout=-3, stderr=subprocess.PIPE, text=True
    )
    wait_for_parts(output, job, 5)
    with source.open("a") as file:
        file.write("one more\n")
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert errors.splitlines() == [f"failed: {source.name}: the file was changed while the job ran"]
    assert len(list((output / "_ledger" / "shards").glob("*.json"))) < 500


def test_missing_version_is_refused(make_input: MakeInput, score: Score, served_bundles: Path, tmp_path: Path) -> None:
    _, source = make_input("csv", 3)
    with pytest.raises(ScoringError, match="expected one version, found none"):
        run.score("tiny-texts@000000000000", [source], tmp_path / "out", bundles=served_bundles)


def test_worker_that_cannot_start_fails_the_job(served_bundles: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", bundles=tmp_path / "nowhere")
    outcome = run_local([job], iter(()), workers=1, context=context_of())
    assert outcome.stopped
    assert outcome.failures[0].startswith("a worker cannot start: tiny-texts/")
