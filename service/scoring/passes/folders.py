"""Where the jobs of a pass are: each has a folder of its own below the output, with the name of its model."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from service.scoring.job import ScoringError
from service.scoring.output.ledger import JOB, Ledger, open_folder
from service.scoring.storage.location import Location


def job_names(models: Sequence[tuple[str, str]]) -> list[str]:
    """The name of each job by the name and version of its model: NAME, or NAME@VERSION if a name comes twice."""
    names = Counter(name for name, _ in models)
    if repeated := [pair for pair, count in Counter(models).items() if count > 1]:
        raise ScoringError(f"--model {'@'.join(repeated[0])}: given twice, name each model once")
    return [name if names[name] == 1 else f"{name}@{version}" for name, version in models]


def check_holds_no_job(place: Location) -> None:
    """Raise ScoringError if the place is the output of one job, below which no other jobs may write."""
    with closing(Ledger(place.uri)) as ledger:
        if ledger.read_job() is not None:
            raise ScoringError(
                f"--output {place} belongs to a job of one model, and several models write to folders below it: choose "
                "another --output"
            )


def subfolders(place: Location) -> dict[str, Location]:
    """The folders below a place that may hold jobs, by name, in order."""
    if place.kind == "file":
        folder = Path(place.path)
        names = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set[str]()
    else:
        names = set[str]()
        # A bucket that does not exist holds no job.
        with closing(open_folder(place)) as output, suppress(FileNotFoundError):
            names = {file.removesuffix(f"/{JOB}") for file in output.sizes() if file.endswith(f"/{JOB}")}
    return {name: place.child(name) for name in sorted(names) if "/" not in name}
