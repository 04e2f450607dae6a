"""The documents as data: examples to run, tables to generate, commands to check.

    make docs      rewrites the tables and the answers, from a service over the bundles of this checkout

An example is a comment `<!-- example: NAME -->`, a `sh` block and, if the command prints something, a `json` block. A
table stands between `<!-- table: NAME -->` and `<!-- /table -->`.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekiben.bench.__main__ import command_parser as bench_parser
from ekiben.cli.inspection import command_parser as inspect_parser
from ekiben.cli.parser import CommandParser
from export.__main__ import inspect_parser as spec_parser
from export.__main__ import runs_parser
from export.sources.registry import WAYS, source_parser
from export.table import HEADER, manifests, row
from service.__main__ import command_parser as serve_parser
from service.http.telemetry.exposition import FAMILIES
from service.http.wire.errors import STATUS
from service.manifest import CARD, Manifest
from service.scoring.command.parser import command_parser as score_parser
from service.scoring.watch.status import command_parser as status_parser
from service.settings import settings_table
from tests.e2e.serving import ROOT, SERVE, environment, serving
from training.__main__ import parser as train_parser

README = ROOT / "README.md"
BUNDLES = ROOT / "bundles"
IMAGES = ROOT / "docs" / "images"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "127.0.0.1:3000"  # as the documents write it
LINE_WIDTH = 160  # of a printed answer
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```sh\n(.*?)```\n(?:```json\n(.*?)```\n)?", re.DOTALL)
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)
BLOCK = re.compile(r"```(\w+)(?: title=(\S+))?\n(.*?)```", re.DOTALL)
CARD_DATA = re.compile(r"^## Data\n\n\*\*(.+?)\.\*\* (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    command: str
    answer: Any  # None where the command prints nothing


def examples(page: str) -> list[Example]:
    return [
        Example(name=name, command=command, answer=json.loads(answer) if answer else None)
        for name, command, answer in EXAMPLE.findall(page)
    ]


def run(example: Example, address: str, cwd: Path) -> str:
    """Run the command against the service at `address` and return what it prints."""
    command = example.command.replace(ADDRESS, address.removeprefix("http://"))
    return subprocess.run(["bash", "-euc", command], cwd=cwd, check=True, capture_output=True, text=True).stdout


def format_json(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON in which every object and list that fits into `LINE_WIDTH` stands on one line.

    `used` is the number of characters that the member's key takes of its first line.
    """
    line = json.dumps(value, ensure_ascii=False)
    if indent + used + len(line) <= LINE_WIDTH or not isinstance(value, dict | list):
        return line
    keys = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    members = value.values() if isinstance(value, dict) else value
    lines = [f"{key}{format_json(item, indent + 2, len(key) + 1)}" for key, item in zip(keys, members, strict=True)]
    inner, outer = " " * (indent + 2), " " * indent
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}" + f",\n{inner}".join(lines) + f"\n{outer}{last}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def training_data(manifest: Manifest) -> tuple[str, str]:
    """The name of the data that a model was trained on and a sentence about it, from the card in its bundle."""
    card = (BUNDLES / manifest.name / manifest.version / CARD).read_text()
    found = CARD_DATA.search(card)
    assert found, f"{manifest.name}: its card has no section on data"
    return found[1], found[2]


def models_table() -> str:
    """One line a model: what it is, its metric and the data set, its parity."""
    chosen = (0, 1, 3, 4)
    rows = map(row, manifests(BUNDLES))
    return markdown([HEADER[i] for i in chosen], ([line[i] for i in chosen] for line in rows))


def parity_table() -> str:
    """One line a model: its task, the largest difference to PyTorch, the tolerance, invariance and size."""
    chosen = (0, 2, 4, 5, 6, 7)
    rows = map(row, manifests(BUNDLES))
    return markdown([HEADER[i] for i in chosen], ([line[i] for i in chosen] for line in rows))


def data_table() -> str:
    """One line a data set: what it holds, and the models that were trained on it."""
    models: dict[tuple[str, str], list[str]] = {}
    for manifest in manifests(BUNDLES):
        models.setdefault(training_data(manifest), []).append(manifest.name)
    return markdown(
        ["data", "what it holds", "models"],
        ([name, note, ", ".join(trained)] for (name, note), trained in models.items()),
    )


def problems_table() -> str:
    return markdown(["`code`", "status"], ([f"`{slug}`", str(int(status))] for slug, status in STATUS.items()))


def metrics_table() -> str:
    return markdown(["family", "type", "meaning"], map(_metric, FAMILIES))


def _metric(name: str) -> list[str]:
    family = FAMILIES[name]
    labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
    return [f"`{name}{family.suffix}{labels}`", family.kind, family.text]


def command_parsers() -> list[argparse.ArgumentParser]:
    """The parsers of all commands of `ekiben` that have options."""
    return [
        train_parser(CommandParser),
        runs_parser(CommandParser),
        *(source_parser(name, CommandParser) for name in WAYS),
        spec_parser(CommandParser),
        serve_parser(CommandParser),
        score_parser(CommandParser),
        status_parser(CommandParser),
        bench_parser(CommandParser),
        inspect_parser(CommandParser),
    ]


def flags_table() -> str:
    """For each command a heading and a table of what it takes."""
    return "\n\n".join(
        f"## {parser.prog}\n\n{markdown(['option', 'meaning'], map(_flag, _arguments(parser)))}"
        for parser in command_parsers()
    )


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest != "help"]


def _flag(action: argparse.Action) -> list[str]:
    """What is typed, and what it means."""
    assert action.help, f"{action.option_strings or action.metavar}: give it a help text"
    value = "" if action.nargs == 0 else (action.metavar or "|".join(action.choices or ()) or action.dest.upper())
    words = " ".join(filter(None, [", ".join(action.option_strings), str(value)]))
    required = "; required" if action.required and action.option_strings else ""
    return [f"`{words}`".replace("|", "\\|"), f"{action.help}{required}".replace("|", "\\|")]


TABLES: dict[str, Callable[[], str]] = {
    "models": models_table,
    "parity": parity_table,
    "data": data_table,
    "problems": problems_table,
    "settings": settings_table,
    "metrics": metrics_table,
    "flags": flags_table,
}
TRAINED_TABLES = frozenset({"models", "parity", "data"})  # their numbers are those of one training


def with_tables(page: str) -> str:
    """The page with every table generated again."""
    return TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]().strip()}\n{match[3]}", page)


def with_answers(page: str, address: str) -> str:
    """The page with every answer replaced by what the service at `address` returns now."""

    def rewrite(match: re.Match[str]) -> str:
        name, command, answer = match.groups()
        printed = run(Example(name=name, command=command, answer=None), address, ROOT)
        block = f"```json\n{format_json(json.loads(printed))}\n```\n" if answer else ""
        return f"<!-- example: {name} -->\n```sh\n{command}```\n{block}"

    return EXAMPLE.sub(rewrite, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="start a service and rewrite the answers as well")
    args = parser.parse_args()
    pages = {path: with_tables(path.read_text()) for path in PAGES}
    if args.serve:
        with tempfile.TemporaryDirectory() as folder:
            env = environment(EKIBEN_BUNDLES=str(BUNDLES), BENTOML_HOME=folder)
            with serving(SERVE, env=env, cwd=ROOT, log=Path(folder) / "log") as address:
                pages = {path: with_answers(page, address) for path, page in pages.items()}
        (ROOT / "digits.png").rename(IMAGES / "digits.png")  # written by an example
        shutil.copy(ROOT / "runs" / "mnist-cnn" / "misclassified.png", IMAGES / "mnist-cnn.png")
    for path, page in pages.items():
        path.write_text(page)


if __name__ == "__main__":
    main()
