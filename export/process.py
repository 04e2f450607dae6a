"""Export of several models, each in a fresh process: a second export in the same process can give a wrong graph.

A refused model, or a process that dies, leaves no files and does not stop the others. The parent process does not
import torch.
"""

from argparse import Namespace
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

# The number of stages that `export.pipeline` reports.
NUM_STAGES = 11
RUN = "run"


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """A model to export: the options of a way in of export.sources.registry, or a run, whose options are `folder`."""

    name: str
    command: str
    options: Namespace

    @classmethod
    def of_run(cls, folder: Path) -> "ExportJob":
        """The job of one run."""
        return cls(name=folder.resolve().name, command=RUN, options=Namespace(folder=folder))


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The manifest of a written bundle, or the reason for a refusal."""

    name: str
    manifest: Manifest | None = None
    reason: str = ""


@dataclass(kw_only=True)
class ExportProcess:
    """A running export and its progress bar."""

    name: str
    process: SpawnProcess
    task: TaskID


def export_all(jobs: Sequence[ExportJob], bundles: Path, num_processes: int, console: Console) -> list[ExportResult]:
    """Export every model, `num_processes` at a time, and return the results in the order of the jobs."""
    pending, results = deque(enumerate(jobs)), dict[int, ExportResult]()
    with _progress_bars(console) as bars:
        running: dict[Connection, tuple[int, ExportProcess]] = {}
        while pending or running:
            while pending and len(running) < num_processes:
                position, job = pending.popleft()
                connection, child = _start(job, bundles, bars)
                running[connection] = (position, child)
            ready = set(wait(list(running)))
            for connection in [connection for connection in running if connection in ready]:
                position, child = running[connection]
                result = _receive(connection, child, bars, console)
                if result is not None:
                    results[position] = result
                    del running[connection]
    return [results[position] for position in range(len(jobs))]


def _start(job: ExportJob, bundles: Path, bars: Progress) -> tuple[Connection, ExportProcess]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child_main, args=(job, bundles, sender), daemon=True)
    process.start()
    sender.close()
    task = bars.add_task(job.name, total=NUM_STAGES, stage="import")
    return receiver, ExportProcess(name=job.name, process=process, task=task)


def child_main(job: ExportJob, bundles: Path, connection: Connection) -> None:
    """The main function of an export process: send each stage, then the manifest or the reason for the refusal."""
    from export.pipeline import export_model, export_run  # noqa: PLC0415 - only the child processes import torch

    def report(stage: str) -> None:
        connection.send(("stage", stage))

    try:
        if job.command == RUN:
            manifest = export_run(job.options.folder, bundles, report)
        else:
            manifest = export_model(job.command, job.options, bundles, report)
        connection.send(("written", manifest.model_dump_json()))
    except (ValueError, OSError) as error:
        connection.send(("refused", str(error)))
    # A model from elsewhere may raise anything, wherever it is called.
    except Exception as error:
        if job.command == RUN:
            raise
        line = (str(error).strip().splitlines() or ["no message"])[0]
        connection.send(("refused", f"{type(error).__name__}: {line}"))


def _receive(connection: Connection, child: ExportProcess, bars: Progress, console: Console) -> ExportResult | None:
    """Handle one message of an export process. Return None if the export is still running."""
    try:
        kind, content = connection.recv()
    except EOFError:
        child.process.join()
        kind, content = "refused", f"its process ended with exit status {child.process.exitcode}"
    match kind:
        case "stage":
            bars.update(child.task, stage=content)
            bars.advance(child.task)
            return None
        case "written":
            result = ExportResult(name=child.name, manifest=Manifest.model_validate_json(content))
            bars.update(child.task, completed=NUM_STAGES, stage="[green]written")
        case _:
            result = ExportResult(name=child.name, reason=content)
            bars.update(child.task, stage="[red]refused")
    if not console.is_terminal:
        console.print(f"{child.name}: {'written' if result.manifest else 'refused'}", highlight=False)
    child.process.join()
    connection.close()
    return result


@contextmanager
def _progress_bars(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress
