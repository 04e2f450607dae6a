"""Kills scoring jobs at random moments and checks that their output equals that of an uninterrupted job.

    python -m benchmarks.scoring.kills [--kills 200] [--seed 0] [--only local local-s3 ray ray-s3]

Each job scores one format with real processes, into a folder or into an object store (an S3 server in a process of its
own, which holds the input too), or on a cluster of Ray. At a random moment its coordinator, one of its workers, or all
of them get SIGKILL. The same command runs and is killed several times, then runs to its end. The checks after each
kill: every visible part is complete, and no more shards are partly written than there are workers. The checks at the
end: the output equals that of an uninterrupted job byte for byte, and the last run computed only the missing rows.
The first sixteen jobs score Parquet, CSV, JSON Lines and prompts at every target, the next ones every format in turn.
Prints a table of the kills by format and target.
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
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.scoring.tiny_bundles import write_tiny_bundles
from tests.service.bundles import NAMES
from tests.service.scoring.inputs import FORMATS
from tests.service.scoring.object_server import ObjectServer, object_server

ROOT = Path(__file__).parents[2]
WORKERS = 2
ROWS = {"language-model": 120, "image-generator": 400}
SINKS = ("parquet", "csv", "jsonl")
KILLS_PER_JOB = 5
RAY_WORKERS = ("ray::score_on_node", "ray::IDLE")
# What runs a job and where it writes.
TARGETS = {
    "local": "local processes, folder",
    "local-s3": "local processes, S3",
    "ray": "Ray, folder",
    "ray-s3": "Ray, S3",
}
# The turns of the targets. A cluster of Ray takes ten seconds to start.
TURNS = (*("local", "local-s3") * 3, "ray", *("local", "local-s3") * 3, "ray-s3")
# Formats that are killed at every target.
EVERYWHERE = ("parquet-pixels", "csv", "jsonl", "prompts")


class Output(Protocol):
    """Where a job writes. `read_all`: the content of every file but timing.json."""

    place: str

    def read_all(self) -> dict[str, bytes]: ...

    def remove(self) -> None: ...


class LocalOutput:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.place = folder, str(folder)

    def read_all(self) -> dict[str, bytes]:
        return tree(self._folder)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class RemoteOutput:
    """A prefix of the bucket `data`."""

    def __init__(self, server: ObjectServer, prefix: str) -> None:
        self._server, self._prefix, self.place = server, prefix, server.uri(prefix)

    def read_all(self) -> dict[str, bytes]:
        return self._server.tree(self._prefix)

    def remove(self) -> None:
        self._server.delete(*(key for key in self._server.list_keys() if key.startswith(f"{self._prefix}/")))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job: its command, where it writes, and the output and duration of an uninterrupted run."""

    name: str
    command: list[str]
    output: Output
    expected: dict[str, bytes]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    jobs = _jobs(args.only)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ekiben-kills-")))
        server = stack.enter_context(object_server())
        bundles = folder / "bundles"
        write_tiny_bundles(bundles)
        done, victims, kills, started = 0, Counter[str](), Counter[tuple[str, str]](), time.monotonic()
        while done < args.kills:
            input_format, sink, target = next(jobs)
            case = _prepare(folder / "job", input_format, sink, bundles=bundles, target=target, server=server)
            hit = kill_repeatedly(case, min(KILLS_PER_JOB, args.kills - done), rng, victims)
            done += hit
            kills[_kind(input_format), TARGETS[target]] += hit
            print(f"{done:4} kills  {case.name}: bytes equal", flush=True)
        print(_table(kills))
        spread = ", ".join(f"{count} of {victim}" for victim, count in sorted(victims.items()))
        seconds = time.monotonic() - started
        print(f"{done} kills ({spread}) in {seconds:.0f} s: every final output equal, no partial file visible")


def _jobs(targets: list[str]) -> Iterator[tuple[str, str, str]]:
    """Format of the input, format of the output and target of each job, without end."""
    sinks = cycle(SINKS)
    for input_format in EVERYWHERE:
        yield from ((input_format, next(sinks), target) for target in TARGETS if target in targets)
    turns = cycle([target for target in TURNS if target in targets])
    for input_format in cycle(sorted(FORMATS)):
        yield input_format, next(sinks), next(turns)


def _kind(input_format: str) -> str:
    """The row of the table that a format belongs to."""
    if FORMATS[input_format][0] in ROWS:
        return "generated texts and images"
    prefixes = {"parquet": "Parquet", "csv": "CSV", "jsonl": "JSON Lines"}
    return prefixes.get(input_format.partition("-")[0], "other formats")


def _table(kills: Counter[tuple[str, str]]) -> str:
    """The kills by kind of input and place, in Markdown."""
    places = sorted({place for _, place in kills})
    rows = [[kind, *(str(kills[kind, place]) for place in places)] for kind in sorted({kind for kind, _ in kills})]
    return "\n".join(f"| {' | '.join(row)} |" for row in (["input", *places], ["---", *["---:"] * len(places)], *rows))


def _prepare(folder: Path, input_format: str, sink: str, *, bundles: Path, target: str, server: ObjectServer) -> Case:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    server.empty()
    family, write = FORMATS[input_format]
    source = write(folder, ROWS.get(family, 1200))
    is_remote = target.endswith("s3")
    if is_remote:
        if source.is_dir():
            server.upload(source, f"in/{source.name}")
        else:
            server.put(f"in/{source.name}", source.read_bytes())
    shard_rows = 8 if family in ROWS else 40
    command = [
        *(sys.executable, "-m", "service.scoring", "--model", NAMES[family], "--bundles", str(bundles)),
        *("--input", server.uri(f"in/{source.name}") if is_remote else str(source)),
        *("--output-format", sink, "--shard-rows", str(shard_rows), "--engine", target.partition("-")[0]),
        *(("--ray-address", "local") if target.startswith("ray") else ()),
        *("--workers", str(WORKERS), "--device", "cpu", "--json"),
        *(("--set", "max_tokens=5") if family == "language-model" else ()),
    ]

    def output(name: str) -> Output:
        return RemoteOutput(server, name) if is_remote else LocalOutput(folder / name)

    uninterrupted = output("uninterrupted")
    started = time.monotonic()
    _run_to_end([*command, "--output", uninterrupted.place])
    return Case(
        name=f"{input_format} -> {sink}, {TARGETS[target]}",
        command=command,
        output=output("out"),
        expected=uninterrupted.read_all(),
        seconds=time.monotonic() - started,
    )


def _run_to_end(command: list[str]) -> int:
    """Run a job; return how many rows it computed."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
    # Ray writes lines of its own before.
    return int(json.loads(done.stdout.strip().rpartition("\n")[2])["computed"])


def kill_repeatedly(case: Case, kills: int, rng: random.Random, victims: Counter[str]) -> int:
    """Kill the job up to `kills` times, then let it end; return how many kills hit a running job."""
    case.output.remove()
    hit, seconds = 0, case.seconds
    while hit < kills:
        job = subprocess.Popen(
            [*case.command, "--output", case.output.place],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        victim, began = rng.choice(["the coordinator", "a worker", "all"]), time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            job.wait(rng.uniform(0, seconds * 1.1))
        if not _kill(job, victim, rng):
            # The job had already ended, so the next kill needs a new job.
            seconds = min(seconds, time.monotonic() - began)
            case.output.remove()
            continue
        hit += 1
        victims[victim] += 1
        _check_visible(case)
    num_missing = _missing_rows(case)
    computed = _run_to_end([*case.command, "--output", case.output.place])
    if computed > num_missing:
        sys.exit(f"{case.name}: {num_missing} rows were missing, but the last run computed {computed}")
    _compare(case, case.output.read_all())
    return hit


def _kill(job: "subprocess.Popen[bytes]", victim: str, rng: random.Random) -> bool:
    """Send SIGKILL; return whether the job was running. A job that lost a worker must still finish."""
    if job.poll() is not None:
        return False
    everything: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        everything = psutil.Process(job.pid).children(recursive=True)
    # The processes of Ray that score are called after their task. The others are its servers, and without the agents
    # a node is lost, which is all of this cluster.
    is_ray = any("raylet" in _name(process) for process in everything)
    workers = [process for process in everything if not is_ray or _name(process) in RAY_WORKERS]
    if victim == "a worker":
        if not workers:
            victim = "the coordinator"
        else:
            with suppress(psutil.NoSuchProcess):
                rng.choice(workers).kill()
            if job.wait() != 0:
                sys.exit(f"the job did not survive the loss of a worker: exit code {job.returncode}")
            return True
    if victim == "all":
        os.killpg(job.pid, signal.SIGKILL)
    else:
        job.kill()
    job.wait()
    if victim == "all" or is_ray:
        # The servers of Ray have sessions of their own, and nothing else ends them at once.
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    if victim == "all" or is_ray or rng.random() < 0.5:
        # In the other cases the next run starts beside workers that have lost their coordinator.
        psutil.wait_procs(everything)
    return True


def _name(process: psutil.Process) -> str:
    """The command of a process; empty if it has ended."""
    with suppress(psutil.NoSuchProcess, IndexError):
        return str(process.cmdline()[0])
    return ""


def _check_visible(case: Case) -> None:
    """Exit unless every visible part is complete and no more shards are partly written than there are workers."""
    files = case.output.read_all()
    for name, content in files.items():
        if name.startswith(("predictions/", "rejects/")) and case.expected.get(name) != content:
            sys.exit(f"{case.name}: {name} is visible but not complete")
    records = {Path(name).stem for name in files if name.startswith("_ledger/shards/")}
    unfinished = {
        Path(name).name.partition(".")[0] for name in files if name.startswith(("_ledger/work/", "_ledger/claims/"))
    }
    # Workers of a killed coordinator may still run beside those of the next run.
    if len(unfinished - records) > 2 * WORKERS:
        sys.exit(f"{case.name}: {len(unfinished - records)} shards are partly written, but there are {WORKERS} workers")


def _missing_rows(case: Case) -> int:
    total = json.loads(case.expected["summary.json"])["rows"]
    files = case.output.read_all()
    records = [json.loads(content) for name, content in files.items() if name.startswith("_ledger/shards/")]
    return int(total - sum(record["scored"] + record["rejected"] for record in records))


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
