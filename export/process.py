"""Export of several runs, each in a fresh process: a second export in the same process can give a wrong graph.

A refused run, or a process that dies, leaves no files and does not stop the other runs. The parent process does not
import torch.
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

# The number of stages that `export.pipeline` reports.
NUM_STAGES = 11


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


def export_all(runs: Sequence[Path], bundles: Path, jobs: int, console: Console) -> list[ExportResult]:
    """Export every run, `jobs` at a time, and return the results in the order of the runs."""
    pending, results = deque(runs), dict[Path, ExportResult]()
    with _progress_bars(console) as bars:
        running: dict[Connection, tuple[Path, ExportProcess]] = {}
        while pending or running:
            while pending and len(running) < jobs:
                folder = pending.popleft()
                connection, child = _start(folder, bundles, bars)
                running[connection] = (folder, child)
            ready = set(wait(list(running)))
            for connection in [connection for connection in running if connection in ready]:
                folder, child = running[connection]
                result = _receive(connection, child, bars, console)
                if result is not None:
                    results[folder] = result
                    del running[connection]
    return [results[folder] for folder in dict.fromkeys(runs)]


def _start(folder: Path, bundles: Path, bars: Progress) -> tuple[Connection, ExportProcess]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child_main, args=(folder, bundles, sender), daemon=True)
    process.start()
    sender.close()
    name = folder.resolve().name
    task = bars.add_task(name, total=NUM_STAGES, stage="import")
    return receiver, ExportProcess(name=name, process=process, task=task)


def child_main(folder: Path, bundles: Path, connection: Connection) -> None:
    """The main function of an export process: send each stage, then the manifest or the reason for the refusal."""
    from export.pipeline import export_run  # noqa: PLC0415 - only the child processes import torch

    try:
        manifest = export_run(folder, bundles, lambda stage: connection.send(("stage", stage)))
        connection.send(("written", manifest.model_dump_json()))
    except (ValueError, OSError) as error:
        connection.send(("refused", str(error)))


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
