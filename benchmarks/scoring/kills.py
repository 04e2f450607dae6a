"""Kill scoring jobs at random moments and see whether their output can be told from an uninterrupted one.

    python -m benchmarks.scoring.kills [--kills 200] [--seed 0]

Each job scores one format with real processes. At a random moment its coordinator, one of its workers, or all of them
at once get SIGKILL; then the same command is given again, and killed again, and at last left to end. Asked each time:
is every visible part whole, are no more shards half done than there are workers, is the final tree byte for byte that
of a job that nobody disturbed, and did the last run compute only what was missing?
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.scoring.tiny import write_served_bundles
from tests.service.bundles import NAMES
from tests.service.scoring.inputs import FORMATS

ROOT = Path(__file__).parents[2]
WORKERS = 2
ROWS = {"language-model": 120, "image-generator": 400}
SINKS = ("parquet", "csv", "jsonl")
KILLS_PER_JOB = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job: its command, and what it leaves behind when nobody disturbs it."""

    name: str
    command: list[str]
    wanted: dict[str, bytes]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="ekiben-kills-") as name:
        folder = Path(name)
        bundles = folder / "bundles"
        write_served_bundles(bundles)
        done, victims, began = 0, Counter[str](), time.monotonic()
        names = sorted(FORMATS)
        while done < args.kills:
            form, sink = names[(done // KILLS_PER_JOB) % len(names)], SINKS[(done // KILLS_PER_JOB) % len(SINKS)]
            case = _prepare(folder / form, form, sink, bundles)
            done += _torment(case, folder / "out", min(KILLS_PER_JOB, args.kills - done), rng, victims)
            print(f"{done:4} kills  {form} -> {sink}: bytes equal", flush=True)
        spread = ", ".join(f"{count} of {victim}" for victim, count in sorted(victims.items()))
        print(f"{done} kills ({spread}) in {time.monotonic() - began:.0f} s: every final tree equal, nothing torn")


def _prepare(folder: Path, form: str, sink: str, bundles: Path) -> Case:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    family, write = FORMATS[form]
    source = write(folder, ROWS.get(family, 1200))
    shard_rows = 8 if family in ROWS else 40
    command = [
        *(sys.executable, "-m", "service.scoring", "--model", NAMES[family], "--bundles", str(bundles)),
        *("--input", str(source), "--output-format", sink, "--shard-rows", str(shard_rows)),
        *("--workers", str(WORKERS), "--device", "cpu", "--json"),
        *(("--set", "max_tokens=5") if family == "language-model" else ()),
    ]
    output = folder / "undisturbed"
    began = time.monotonic()
    subprocess.run([*command, "--output", str(output)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return Case(name=f"{form} -> {sink}", command=command, wanted=tree(output), seconds=time.monotonic() - began)


def _torment(case: Case, output: Path, kills: int, rng: random.Random, victims: Counter[str]) -> int:
    """Kill the job up to `kills` times, then let it end; returns how many kills hit a running job."""
    shutil.rmtree(output, ignore_errors=True)
    hit = 0
    while hit < kills:
        job = subprocess.Popen(
            [*case.command, "--output", str(output)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0, case.seconds * 1.1))
        victim = rng.choice(["the coordinator", "a worker", "all"])
        if not _kill(job, victim, rng):
            shutil.rmtree(output, ignore_errors=True)  # it had ended: begin another
            continue
        hit += 1
        victims[victim] += 1
        _check_torn(case, output)
    missing = _missing_rows(case, output)
    last = subprocess.run(
        [*case.command, "--output", str(output)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    computed = json.loads(last.stdout)["computed"]
    if computed > missing:
        sys.exit(f"{case.name}: {missing} rows were missing, the last run computed {computed}")
    _compare(case, tree(output))
    return hit


def _kill(job: "subprocess.Popen[bytes]", victim: str, rng: random.Random) -> bool:
    """SIGKILL; True if it met somebody at work. A job that lost a worker is waited for: it must end by itself."""
    if job.poll() is not None:
        return False
    workers = psutil.Process(job.pid).children()
    if victim == "a worker":
        if not workers:
            victim = "the coordinator"
        else:
            rng.choice(workers).kill()
            if job.wait() != 0:
                sys.exit(f"the job did not survive the loss of a worker: exit code {job.returncode}")
            return True
    if victim == "all":
        os.killpg(job.pid, signal.SIGKILL)
    else:
        job.kill()
    job.wait()
    if victim == "all" or rng.random() < 0.5:
        psutil.wait_procs(workers)  # the others leave orphans at work when the next run begins
    return True


def _check_torn(case: Case, output: Path) -> None:
    """What can be seen is whole, and no more is half done than there are workers."""
    for name, content in tree(output).items():
        if name.startswith(("predictions/", "rejects/")) and case.wanted.get(name) != content:
            sys.exit(f"{case.name}: {name} is visible and not what it will be")
    work = output / "_ledger" / "work"
    records = {path.stem for path in (output / "_ledger" / "shards").glob("*.json")}
    begun = {path.name.partition(".")[0] for path in work.glob("*")} - records if work.exists() else set()
    if len(begun) > 2 * WORKERS:  # an orphan may still be at work beside the next run
        sys.exit(f"{case.name}: {len(begun)} shards are half done, there are {WORKERS} workers")


def _missing_rows(case: Case, output: Path) -> int:
    total = json.loads(case.wanted["summary.json"])["rows"]
    records = [json.loads(path.read_bytes()) for path in (output / "_ledger" / "shards").glob("*.json")]
    return total - sum(record["scored"] + record["rejected"] for record in records)


def tree(output: Path) -> dict[str, bytes]:
    """Every file but the one that holds times."""
    if not output.exists():
        return {}
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != "timing.json":
            try:
                found[path.relative_to(output).as_posix()] = path.read_bytes()
            except FileNotFoundError:  # an orphan renamed it meanwhile
                continue
    return found


def _compare(case: Case, found: dict[str, bytes]) -> None:
    differing = sorted(name for name in case.wanted.keys() | found.keys() if case.wanted.get(name) != found.get(name))
    if differing:
        sys.exit(f"{case.name}: the output differs from the undisturbed one in {', '.join(differing[:5])}")


if __name__ == "__main__":
    main()
