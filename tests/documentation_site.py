"""Builds the documentation site: `python -m tests.documentation_site`, which `make site` runs.

Assembles build/pages from docs/, from documents outside of it, and from what is generated here, with links rewritten,
then builds build/site with warnings as errors. The build ends with an error if a link leads outside of the pages.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ekiben.client
from ekiben.client import AsyncClient, Client
from service.http.openapi.document import build_document
from service.http.router import served_routes
from service.scoring import run
from service.scoring.frameworks import predictor
from tests.documents import ROOT, markdown

PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
DOCS = ROOT / "docs"
# Documents outside of docs/, and the pages that they become.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "LICENSE": "license.md",
    "benchmarks/LOG.md": "measurements.md",
    "benchmarks/peers/results.md": "peers.md",
    "docs/decisions": "decisions/index.md",
}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)([^)\s]*\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
DIAGRAM = re.compile(r"```mermaid\n.*?```", re.DOTALL)
COMMENT = re.compile(r"<!-- (?:/?table|example)[^>]*-->\n?")


def assemble() -> None:
    """Write every page of the site into build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(DOCS, PAGES)
    for source in DOCS.rglob("*.md"):
        _write(source.relative_to(DOCS).as_posix(), source.read_text(), source)
    for name, page in OUTSIDE.items():
        if (ROOT / name).is_file():
            _write(page, (ROOT / name).read_text(), ROOT / name)
    (PAGES / "license.md").write_text(f"# License\n\n```text\n{(ROOT / 'LICENSE').read_text()}```\n")
    (PAGES / "decisions/index.md").write_text(decisions())
    (PAGES / "api.md").write_text(api())
    document = build_document(served_routes())
    (PAGES / "openapi.md").write_text(routes(document))
    (PAGES / "openapi.json").write_text(json.dumps(document, indent=1))


def _write(page: str, text: str, source: Path) -> None:
    """Write a page whose links lead to pages. The README's diagram is a picture: drawing it needs a script of a CDN."""
    if source.name == "README.md":
        text = DIAGRAM.sub("![What passes between the stages](docs/images/concepts.svg)", text)
    parts = CODE.split(COMMENT.sub("", text))
    (PAGES / page).write_text("".join(part if i % 2 else _rewrite(part, page, source) for i, part in enumerate(parts)))


def _rewrite(text: str, page: str, source: Path) -> str:
    def rewrite(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if "://" in target:
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        name = path.relative_to(ROOT).as_posix()
        if name not in OUTSIDE and not path.is_relative_to(DOCS):
            raise ValueError(f"{source.relative_to(ROOT)}: the site has no page for {target}")
        place = OUTSIDE.get(name) or path.relative_to(DOCS).as_posix()
        return f"{before}{os.path.relpath(place, Path(page).parent)}{after}"

    return LINK.sub(rewrite, text)


def decisions() -> str:
    """The list of decisions, by their headings."""
    pages = sorted((DOCS / "decisions").glob("*.md"))
    lines = [f"- [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})" for page in pages]
    return "# Decisions\n\nWhat cost an hour to argue is written down once.\n\n" + "\n".join(lines) + "\n"


def routes(document: dict[str, Any]) -> str:
    """Every operation of the OpenAPI document."""
    rows = [
        [f"`{method.upper()} {path}`", operation["summary"], ", ".join(sorted(operation["responses"]))]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "head"
    ]
    return (
        "# OpenAPI\n\nThe service answers `GET /openapi.json` with this document and the examples and schemas of the "
        "models that it has loaded. [The document without models](openapi.json) is OpenAPI 3.1.\n\n"
        + markdown(["operation", "what it does", "statuses"], rows)
        + "\n"
    )


def api() -> str:
    """The parts of the packages that programs import, from their docstrings."""
    values = [getattr(ekiben.client, name) for name in ekiben.client.__all__]
    others = [value for value in values if value not in {Client, AsyncClient}]
    sections = [
        ("ekiben.client.Client", _class(Client)),
        ("ekiben.client.AsyncClient", _class(AsyncClient)),
        ("Values and errors of the client", "\n\n".join(_short(value) for value in others)),
        ("service.scoring.run.score", _function(run.score)),
        ("service.scoring.frameworks.predictor", _module(predictor)),
    ]
    return "# Python API\n\n" + "\n\n".join(f"## {title}\n\n{text}" for title, text in sections) + "\n"


def _class(value: type) -> str:
    methods = [member for name, member in inspect.getmembers(value, callable) if not name.startswith("_")]
    parts = [_function(value.__init__, name=value.__name__, text=inspect.getdoc(value) or "")]
    return "\n\n".join(parts + [f"### {value.__name__}.{each.__name__}\n\n{_function(each)}" for each in methods])


def _module(value: ModuleType) -> str:
    defined = [
        member for _, member in inspect.getmembers(value, inspect.isclass) if member.__module__ == value.__name__
    ]
    return f"{inspect.getdoc(value)}\n\n" + "\n\n".join(_class(each) for each in defined)


def _function(value: Callable[..., Any], *, name: str = "", text: str | None = None) -> str:
    signature = str(inspect.signature(value)).replace("(self, ", "(").replace("(self)", "()")
    described = (inspect.getdoc(value) or "") if text is None else text
    return f"```python\n{name or value.__name__}{signature}\n```\n\n{described}"


def _short(value: Any) -> str:
    return f"**`{value.__name__}`**: {inspect.getdoc(value) or ''}"


def build() -> None:
    """Build build/site from build/pages. Raises CalledProcessError."""
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.rmtree(ROOT / ".cache", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=True)


def main() -> None:
    assemble()
    build()
    print(f"{len(list(SITE.rglob('*.html')))} pages: {SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
