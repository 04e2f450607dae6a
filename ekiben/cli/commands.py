"""The commands and the modules that they run, each imported when it is called."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ekiben.cli.parser import CommandParser

ROOT = Path(__file__).parents[2]
PACKAGES = {"training", "export", "service", "ekiben"}


class CommandError(Exception):
    """Why a command cannot start, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """`module` has the command's `main`; `extras` are those that it needs."""

    summary: str
    module: str
    extras: tuple[str, ...]


COMMANDS = {
    "train": Command(summary="train a recipe into a run folder", module="training.__main__", extras=("train",)),
    "export": Command(
        summary="turn a run, or a model from elsewhere, into a bundle, with proof",
        module="export.__main__",
        extras=("serve", "train"),
    ),
    "serve": Command(
        summary="answer requests over HTTP, and gRPC if set", module="service.__main__", extras=("serve",)
    ),
    "score": Command(summary="score files in batches", module="service.scoring.__main__", extras=("serve", "batch")),
    "bench": Command(
        summary="find the highest rate at which a service is fast enough",
        module="ekiben.bench.__main__",
        extras=("bench",),
    ),
    "inspect": Command(
        summary="show a bundle: contract, proof, signature; or what a model file holds",
        module="ekiben.cli.inspection",
        extras=("serve",),
    ),
}


def run_command(name: str, words: Sequence[str]) -> int:
    """Run a command and return its exit status. Raises CommandError, SystemExit."""
    command = COMMANDS[name]
    check_origin(command.module.partition(".")[0])
    try:
        return importlib.import_module(command.module).main(list(words), parser_class=CommandParser) or 0
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent in PACKAGES:
            raise
        raise CommandError(_how_to_install(absent, command)) from error


def check_origin(package: str) -> None:
    """Raise CommandError if Python would import another package of this name than the one beside this module."""
    if package not in PACKAGES:
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise CommandError(f"the package {package} is missing in {ROOT}; install ekiben again")
    if Path(spec.origin).resolve().parents[1] != ROOT.resolve():
        folder = Path(spec.origin).parent
        raise CommandError(
            f"{folder} is imported instead of {ROOT / package}; start it from another folder, without PYTHONPATH, or "
            "install ekiben in an environment of its own"
        )


def _how_to_install(absent: str, command: Command) -> str:
    if (ROOT / "pyproject.toml").is_file():
        groups = " ".join(f"--group {extra}" for extra in command.extras)
        return f"the package {absent} is missing; pip install {groups}, in {ROOT}"
    return f'the package {absent} is missing; pip install "ekiben[{",".join(command.extras)}]"'
