"""Kills scoring jobs at random moments and checks that their output equals that of an uninterrupted job.

    python -m benchmarks.scoring.kills [--kills 200] [--seed 0]

Each job scores one format with real processes. At a random moment its coordinator, one of its workers, or all of them
get SIGKILL. The same command runs and is killed several times, then runs to its end. The checks after each kill: every
visible part is complete, and no more shards are partly written than there are workers. The checks at the end: the
output equals that of an uninterrupted job byte for byte, and the last run computed only the missing rows.
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

from benchmarks.scoring.tiny_bundles import write_tiny_bundles
from tests.service.bundles import NAMES
from tests.service.scoring.inputs import FORMATS

ROOT = Path(__file__).parents[2]
WORKERS = 2
ROWS = {"language-model": 120, "image-generator": 400}
SINKS = ("parquet", "csv", "jsonl")
KILLS_PER_JOB = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job: its command, and the output and duration of an uninterrupted run."""

    name: str
    command: list[str]
    expected: dict[str, bytes]
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
        write_tiny_bundles(bundles)
        done, victims, started = 0, Counter[str](), time.monotonic()
        formats = sorted(FORMATS)
        while done < args.kills:
            job_number = done // KILLS_PER_JOB
            input_format, sink = formats[job_number % len(formats)], SINKS[job_number % len(SINKS)]
            case = _prepare(folder / input_format, input_format, sink, bundles)
            done += kill_repeatedly(case, folder / "out", min(KILLS_PER_JOB, args.kills - done), rng, victims)
            print(f"{done:4} kills  {input_format} -> {sink}: bytes equal", flush=True)
        spread = ", ".join(f"{count} of {victim}" for victim, count in sorted(victims.items()))
        seconds = time.monotonic() - started
        print(f"{done} kills ({spread}) in {seconds:.0f} s: every final output equal, no partial file visible")


def _prepare(folder: Path, input_format: str, sink: str, bundles: Path) -> Case:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    family, write = FORMATS[input_format]
    source = write(folder, ROWS.get(family, 1200))
    shard_rows = 8 if family in ROWS else 40
    command = [
        *(sys.executable, "-m", "service.scoring", "--model", NAMES[family], "--bundles", str(bundles)),
        *("--input", str(source), "--output-format", sink, "--shard-rows", str(shard_rows)),
        *("--workers", str(WORKERS), "--device", "cpu", "--json"),
        *(("--set", "max_tokens=5") if family == "language-model" else ()),
    ]
    output = folder / "uninterrupted"
    started = time.monotonic()
    subprocess.run([*command, "--output", str(output)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return Case(
        name=f"{input_format} -> {sink}", command=command, expected=tree(output), seconds=time.monotonic() - started
    )


def kill_repeatedly(case: Case, output: Path, kills: int, rng: random.Random, victims: Counter[str]) -> int:
    """Kill the job up to `kills` times, then let it end; return how many kills hit a running job."""
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
            # The job had already ended, so the next kill needs a new job.
            shutil.rmtree(output, ignore_errors=True)
            continue
        hit += 1
        victims[victim] += 1
        _check_visible(case, output)
    num_missing = _missing_rows(case, output)
    last = subprocess.run(
        [*case.command, "--output", str(output)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    computed = json.loads(last.stdout)["computed"]
    if computed > num_missing:
        sys.exit(f"{case.name}: {num_missing} rows were missing, but the last run computed {computed}")
    _compare(case, tree(output))
    return hit


def _kill(job: "subprocess.Popen[bytes]", victim: str, rng: random.Random) -> bool:
    """Send SIGKILL; return whether the job was running. A job that lost a worker must still finish."""
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
        # In the other cases the next run starts beside workers that have lost their coordinator.
        psutil.wait_procs(workers)
    return True


def _check_visible(case: Case, output: Path) -> None:
    """Exit unless every visible part is complete and no more shards are partly written than there are workers."""
    for name, content in tree(output).items():
        if name.startswith(("predictions/", "rejects/")) and case.expected.get(name) != content:
            sys.exit(f"{case.name}: {name} is visible but not complete")
    work = output / "_ledger" / "work"
    records = {path.stem for path in (output / "_ledger" / "shards").glob("*.json")}
    partial = {path.name.partition(".")[0] for path in work.glob("*")} - records if work.exists() else set()
    # Workers of a killed coordinator may still run beside those of the next run.
    if len(partial) > 2 * WORKERS:
        sys.exit(f"{case.name}: {len(partial)} shards are partly written, but there are {WORKERS} workers")


def _missing_rows(case: Case, output: Path) -> int:
    total = json.loads(case.expected["summary.json"])["rows"]
    records = [json.loads(path.read_bytes()) for path in (output / "_ledger" / "shards").glob("*.json")]
    return total - sum(record["scored"] + record["rejected"] for record in records)


def tree(output: Path) -> dict[str, bytes]:
    """The content of every file of an output but timing.json."""
    if not output.exists():
        return {}
    files = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != "timing.json":
            try:
                files[path.relative_to(output).as_posix()] = path.read_bytes()
            except FileNotFoundError:
                # A worker renamed it meanwhile.
                continue
    return files


def _compare(case: Case, actual: dict[str, bytes]) -> None:
    differing = sorted(
        name for name in case.expected.keys() | actual.keys() if case.expected.get(name) != actual.get(name)
    )
    if differing:
        sys.exit(f"{case.name}: the output differs from the uninterrupted one in {', '.join(differing[:5])}")


if __name__ == "__main__":
    main()
