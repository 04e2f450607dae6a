"""Each model is exported in a fresh process of its own: several exports in one process can give wrong graphs.

A model that is refused, or whose process dies, leaves nothing behind and stops no other. This process imports no torch.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from service.manifest import Manifest

NUM_GATES = 9  # that export.chain reports


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A manifest, or the reason why there is none."""

    name: str
    manifest: Manifest | None = None
    reason: str = ""


@dataclass(kw_only=True)
class Job:
    """A model under way in its process."""

    name: str
    process: SpawnProcess
    task: TaskID


def export_all(runs: Sequence[Path], bundles: Path, jobs: int, console: Console) -> list[Outcome]:
    """Export every run, `jobs` at a time; the outcomes in the order of the runs."""
    waiting, outcomes = deque(runs), dict[Path, Outcome]()
    with _bars(console) as bars:
        working: dict[Connection, tuple[Path, Job]] = {}
        while waiting or working:
            while waiting and len(working) < jobs:
                folder = waiting.popleft()
                pipe, job = _start(folder, bundles, bars)
                working[pipe] = (folder, job)
            ready = set(wait(list(working)))
            for pipe in [pipe for pipe in working if pipe in ready]:
                folder, job = working[pipe]
                outcome = _receive(pipe, job, bars, console)
                if outcome is not None:
                    outcomes[folder] = outcome
                    del working[pipe]
    return [outcomes[folder] for folder in dict.fromkeys(runs)]


def _start(folder: Path, bundles: Path, bars: Progress) -> tuple[Connection, Job]:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(folder, bundles, theirs), daemon=True)
    process.start()
    theirs.close()
    name = folder.resolve().name
    return ours, Job(name=name, process=process, task=bars.add_task(name, total=NUM_GATES, gate="import"))


def work(folder: Path, bundles: Path, pipe: Connection) -> None:
    """The life of a process: gate after gate is reported, then a manifest or a reason."""
    from export.candidate import ExportError  # noqa: PLC0415 - torch is for this process alone
    from export.chain import export_run  # noqa: PLC0415

    try:
        manifest = export_run(folder, bundles, lambda gate: pipe.send(("gate", gate)))
        pipe.send(("written", manifest.model_dump_json()))
    except (ExportError, ValueError, OSError) as error:
        pipe.send(("refused", str(error)))


def _receive(pipe: Connection, job: Job, bars: Progress, console: Console) -> Outcome | None:
    """What a process says: None while it goes on."""
    try:
        kind, content = pipe.recv()
    except EOFError:
        job.process.join()
        kind, content = "refused", f"its process ended with exit status {job.process.exitcode}"
    match kind:
        case "gate":
            bars.update(job.task, gate=content)
            bars.advance(job.task)
            return None
        case "written":
            outcome = Outcome(name=job.name, manifest=Manifest.model_validate_json(content))
            bars.update(job.task, completed=NUM_GATES, gate="[green]written")
        case _:
            outcome = Outcome(name=job.name, reason=content)
            bars.update(job.task, gate="[red]refused")
    if not console.is_terminal:
        console.print(f"{job.name}: {'written' if outcome.manifest else 'refused'}", highlight=False)
    job.process.join()
    pipe.close()
    return outcome


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[gate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress
