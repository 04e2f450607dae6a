"""What the documents say, as data: examples to run, tables to generate, pages to execute.

    make docs      writes tables and answers anew, from a running service over the bundles of this checkout

An example is a comment `<!-- example: NAME -->`, a `sh` block and, if it prints something, a `json` block. A table
stands between `<!-- table: NAME -->` and `<!-- /table -->`.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.table import manifests, markdown
from service.http.wire.errors import STATUS
from service.settings import settings_table
from tests.e2e.serving import ROOT, SERVE, environment, serving

README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
ADDRESS = "127.0.0.1:3000"  # as the documents write it
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```sh\n(.*?)```\n(?:```json\n(.*?)```\n)?", re.DOTALL)
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)
BLOCK = re.compile(r"```(\w+)(?: title=(\S+))?\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    command: str
    answer: Any  # None where nothing is printed


def examples(page: str) -> list[Example]:
    return [
        Example(name=name, command=command, answer=json.loads(answer) if answer else None)
        for name, command, answer in EXAMPLE.findall(page)
    ]


def run(example: Example, address: str, cwd: Path) -> str:
    """What the command prints, asked of the service at `address`."""
    command = example.command.replace(ADDRESS, address.removeprefix("http://"))
    return subprocess.run(["bash", "-euc", command], cwd=cwd, check=True, capture_output=True, text=True).stdout


def tables() -> dict[str, Callable[[], str]]:
    return {
        "models": lambda: markdown(manifests(ROOT / "bundles")),
        "problems": lambda: "\n".join(
            ["| `code` | status |", "| --- | --- |", *(f"| `{slug}` | {status} |" for slug, status in STATUS.items())]
        ),
        "settings": settings_table,
    }


def with_tables(page: str) -> str:
    """The page with every table generated anew."""
    known = tables()
    return TABLE.sub(lambda match: f"{match[1]}{known[match[2]]().strip()}\n{match[3]}", page)


def with_answers(page: str, address: str) -> str:
    """The page with every answer as the service gives it now."""

    def fresh(match: re.Match[str]) -> str:
        name, command, answer = match.groups()
        printed = run(Example(name=name, command=command, answer=None), address, ROOT)
        block = f"```json\n{json.dumps(json.loads(printed), indent=2, ensure_ascii=False)}\n```\n" if answer else ""
        return f"<!-- example: {name} -->\n```sh\n{command}```\n{block}"

    return EXAMPLE.sub(fresh, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="write the answers too, of a service started for it")
    args = parser.parse_args()
    pages = {path: with_tables(path.read_text()) for path in [README, *sorted((ROOT / "docs").glob("*.md"))]}
    if args.serve:
        with tempfile.TemporaryDirectory() as folder:
            env = environment(EKIBEN_BUNDLES=str(ROOT / "bundles"), BENTOML_HOME=folder)
            with serving(SERVE, env=env, cwd=ROOT, log=Path(folder) / "log") as address:
                pages = {path: with_answers(page, address) for path, page in pages.items()}
        (ROOT / "digits.png").rename(IMAGES / "digits.png")  # an example writes it
        shutil.copy(ROOT / "runs" / "mnist-cnn" / "misclassified.png", IMAGES / "mnist-cnn.png")
    for path, page in pages.items():
        path.write_text(page)


if __name__ == "__main__":
    main()
