"""Export of several models, each in a fresh process: a second export in the same process can give a wrong graph.

A refused model, or a process that dies, leaves no files and does not stop the others. An interrupt ends the processes
after they have removed what they had not finished. The parent process does not import torch.
"""

import os
import signal
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

from export.errors import one_sentence
from service.contract.precision import PrecisionName
from service.manifest import Manifest

# The number of stages that `export.pipeline` reports.
NUM_STAGES = 11
RUN = "run"
# For the end of a process that has sent its result; a thread of somebody's code may never end.
EXIT_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """A model to export: the options of a way in of export.sources.registry, or a run, whose options are `folder`.

    With a precision, its variant is what is to be written.
    """

    name: str
    command: str
    options: Namespace
    precision: PrecisionName | None = None

    @classmethod
    def of_run(cls, folder: Path, precision: PrecisionName | None = None) -> "ExportJob":
        """The job of one run, in float32 or of its variant in another precision."""
        name = folder.resolve().name
        named = name if precision is None else f"{name}-{precision}"
        return cls(name=named, command=RUN, options=Namespace(folder=folder), precision=precision)


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

    def interrupt(self) -> None:
        """Let the process remove what it has not finished, and end it."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)
        self.end()

    def end(self) -> None:
        """Wait for the process to end, and kill it if it does not."""
        self.process.join(EXIT_TIMEOUT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def export_all(jobs: Sequence[ExportJob], bundles: Path, num_processes: int, console: Console) -> list[ExportResult]:
    """Export every model, `num_processes` at a time, and return the results in the order of the jobs."""
    pending, results = deque(enumerate(jobs)), dict[int, ExportResult]()
    with _progress_bars(console) as bars:
        running: dict[Connection, tuple[int, ExportProcess]] = {}
        try:
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
        except KeyboardInterrupt:
            for _, child in running.values():
                child.interrupt()
            raise
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

    def report(stage: str) -> None:
        connection.send(("stage", stage))

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for jobs in the background
            signal.signal(number, _interrupt_once)
    try:
        from export.pipeline import export_model, export_run  # noqa: PLC0415 - only the child processes import torch

        if job.command == RUN:
            manifest = export_run(job.options.folder, bundles, report, precision=job.precision)
        else:
            manifest = export_model(job.command, job.options, bundles, report, precision=job.precision)
        connection.send(("written", manifest.model_dump_json()))
    except KeyboardInterrupt:
        return
    # A model from elsewhere may raise anything, wherever it is called, and may even end the process.
    except (Exception, SystemExit) as error:
        if job.command == RUN and not isinstance(error, ValueError | OSError):
            raise
        connection.send(("refused", one_sentence(error)))


def _interrupt_once(*_: object) -> None:
    """Raise KeyboardInterrupt at the first signal; the files of an unfinished export are then removed undisturbed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _receive(connection: Connection, child: ExportProcess, bars: Progress, console: Console) -> ExportResult | None:
    """Handle one message of an export process. Return None if the export is still running."""
    try:
        kind, content = connection.recv()
    except EOFError:
        child.end()
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
    child.end()
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
