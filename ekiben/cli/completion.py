"""`ekiben completion SHELL`: print what a shell needs to complete commands and options.

The script knows the options of the stages whose packages are installed where it is printed; others complete to files.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

import shtab

from ekiben.cli.commands import COMMANDS, check_origin

SHELLS = ("bash", "zsh", "fish", "tcsh")
FILES = {"PATH", "PATH|URL", "FOLDER", "FILE", "DIR", "RUN", "MODEL", "BUNDLE", "OUTPUT"}
Factory = Callable[[type[argparse.ArgumentParser]], argparse.ArgumentParser]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ekiben completion",
        description="Print the completion of a shell.",
        epilog="examples:\n  ekiben completion bash > ~/.local/share/bash-completion/completions/ekiben\n"
        "  ekiben completion zsh > ~/.zfunc/_ekiben\n"
        "  ekiben completion fish > ~/.config/fish/completions/ekiben.fish",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    print(shtab.complete(command_parser(), parser.parse_args(argv).shell))
    return 0


def command_parser() -> argparse.ArgumentParser:
    """All commands with their options as one parser, which is described and never used."""
    parser = argparse.ArgumentParser(prog="ekiben")
    parser.add_argument("--version", action="store_true", help="print version and revision")
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, add_help=False, help=command.summary)
        for action in _actions(name):
            added._add_action(action)
        if name == "export" and "export.sources.registry" in sys.modules:
            _add_sources(added)
    completion = commands.add_parser("completion", help="print the completion of a shell")
    completion.add_argument("shell", choices=SHELLS)
    return parser


def _actions(name: str) -> list[argparse.Action]:
    """What a command takes; nothing if its packages are missing. The runs of export complete as files."""
    functions = {"train": "parser", "export": "runs_parser"}
    module = COMMANDS[name].module
    try:
        check_origin(module.partition(".")[0])
        factory: Factory = getattr(importlib.import_module(module), functions.get(name, "command_parser"))
    except ModuleNotFoundError:
        return []
    parser = factory(argparse.ArgumentParser)
    _complete_files(parser)
    if name == "train":
        from training.models import RECIPES  # noqa: PLC0415 - its packages are there

        next(action for action in parser._actions if action.dest == "name").choices = list(RECIPES)
    return [action for action in parser._actions if action.dest != "runs"]


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """The subcommands of export for models from elsewhere."""
    from export.sources.registry import WAYS, source_parser  # noqa: PLC0415 - its packages are there

    sources = parser.add_subparsers()
    for name, way in WAYS.items():
        source = source_parser(name)
        _complete_files(source)
        sources.add_parser(name, parents=[source], add_help=False, help=way.help)


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if action.metavar in FILES or getattr(action.type, "__name__", "") == "Path":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
