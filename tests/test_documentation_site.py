"""The documentation site builds without a warning, and is whole without any other host."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.documentation_site import SITE
from tests.documents import ROOT

LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "src"), ("iframe", "src")}


class HtmlPage(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in LOADING and value:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def pages() -> dict[Path, HtmlPage]:
    """Every page of a fresh build."""
    command = [sys.executable, "-m", "tests.documentation_site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "No issues found" in done.stdout + done.stderr
    return {path: HtmlPage(path) for path in SITE.rglob("*.html")}


def local(links: list[str]) -> Iterator[str]:
    return (link for link in links if not re.match(r"[a-z]+:", link))


def test_every_link_leads_to_a_file_and_an_anchor(pages: dict[Path, HtmlPage]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of the root of a server
            continue
        for link in local([*page.links, *page.loaded]):
            target, anchor = urldefrag(link)
            place = (path.parent / unquote(target)).resolve() if target else path
            place = place / "index.html" if place.is_dir() else place
            anchors = pages[place].anchors if place in pages else {anchor}
            if not place.is_file() or (anchor and unquote(anchor) not in anchors):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_no_page_loads_anything_from_another_host(pages: dict[Path, HtmlPage]) -> None:
    loaded = {link for page in pages.values() for link in page.loaded}
    assert {link for link in loaded if re.match(r"(?:https?:)?//", link)} == set()
    assert any(link.endswith(".js") for link in loaded)
    assert 'class="mermaid"' not in "".join(path.read_text() for path in pages)  # would load its renderer


def test_every_document_is_a_page_in_the_navigation(pages: dict[Path, HtmlPage]) -> None:
    index = pages[SITE / "index.html"]
    listed = {urldefrag(link)[0].removeprefix("./") for link in local(index.links)} | {"index.html"}
    names = {path.relative_to(SITE).as_posix() for path in pages}
    assert {name for name in names if not name.startswith("decisions/0")} - {"404.html"} <= listed
    decisions = {link.removeprefix("./") for link in local(pages[SITE / "decisions" / "index.html"].links)}
    assert {path.name for path in (SITE / "decisions").glob("0*.html")} <= decisions


def test_the_search_index_is_part_of_the_site(pages: dict[Path, HtmlPage]) -> None:
    index = (SITE / "search.json").read_text()
    assert "max-rejects" in index
    assert "EKIBEN_TRUSTED_KEYS" in index


def test_the_interface_of_programs_is_described(pages: dict[Path, HtmlPage]) -> None:
    anchors = pages[SITE / "api.html"].anchors
    assert {"clientclassify", "asyncclientstream", "servicescoringrunscore"} <= {name.lower() for name in anchors}
