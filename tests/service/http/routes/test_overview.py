"""The page at `/`: what is loaded and why not, escaped, without anything from another host."""

import asyncio
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from starlette.testclient import TestClient

from service.http.routes.overview import ROUTES, STYLE
from tests.e2e.serving import ServerProcess
from tests.service.hosts import GRANIAN, ask, running_server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>alert(1)</script>\"'&\u202e\x00\ud800</td><img src=x onerror=alert(2)>"
VOID = {"meta", "link", "br"}
TAGS = {
    "html", "head", "meta", "title", "link", "body", "header", "h1", "p", "main", "section", "h2", "div", "table",
    "thead", "tbody", "tr", "th", "td", "a", "code", "nav", "ul", "li", "br",
}  # fmt: skip


class Outline(HTMLParser):
    """The elements of a page; a page whose elements are not closed in order fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]


def model(**changes: Any) -> dict[str, Any]:
    row = {"name": "a", "state": "READY", "reason": None, "version": "1", "pair": "text -> labels", "summary": "b"}
    return {**row, "next": None, "draining": [], **changes}


def rendered(*models: dict[str, Any], reason: str | None = None, draining: bool = False) -> tuple[Outline, bytes]:
    repository = SimpleNamespace(list_models=lambda: list(models), not_ready_reason=lambda: reason)
    state: Any = SimpleNamespace(repository=repository, draining=draining)
    response = asyncio.run(ROUTES[0].handle(state, None))  # type: ignore[call-arg, arg-type]
    return Outline(response.body.decode()), response.body


def test_the_page_shows_every_model_with_its_state(client: TestClient) -> None:
    page = client.get("/")
    outline = Outline(page.text)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "The service is ready." in outline.text
    models = client.get("/models").json()["models"]
    assert len(models) >= 7
    for row in models:
        assert row["name"] in outline.text
        assert row["summary"] in outline.text
        assert row["version"] in outline.text
    assert outline.text.count("READY") == len(models)


def test_every_link_leads_to_a_route(client: TestClient) -> None:
    links = [link for link in Outline(client.get("/").text).values("href") if not link.startswith("data:")]
    assert {"openapi.json", "models", "metrics", "models/tiny-chat", "overview.css"} <= set(links)
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


def test_reasons_are_shown() -> None:
    waiting = model(name="c", state="FAILED", reason="c/2: parity: too far", version=None, pair=None, summary=None)
    changing = model(next={"version": "2", "state": "FAILED", "reason": "worse"})
    outline, _ = rendered(waiting, changing, reason="c/2: parity: too far")
    assert "The service is not ready: c/2: parity: too far" in outline.text
    assert "FAILED: c/2: parity: too far" in outline.text
    assert "next: 2 is FAILED: worse" in outline.text
    assert "Not ready · Ekiben" in outline.text
    assert "There is no model." in rendered(reason="there is no model")[0].text
    assert "the service is shutting down" in rendered(model(), draining=True)[0].text


@pytest.mark.parametrize("field", ["name", "state", "reason", "version", "pair", "summary", "next"])
def test_texts_of_bundles_are_escaped(field: str) -> None:
    hostile = {"version": HOSTILE, "state": HOSTILE, "reason": HOSTILE} if field == "next" else HOSTILE
    outline, content = rendered(model(**{field: hostile}), reason=HOSTILE)
    assert {tag for tag, _ in outline.elements} <= TAGS
    assert b"<script" not in content
    assert b"<img" not in content
    assert not [name for _, attrs in outline.elements for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in outline.text
    assert "<script>alert(1)</script>\"'&\ufffd\ufffd\ufffd</td>" in outline.text
    assert b"\x00" not in content


def test_the_page_is_well_formed_and_accessible(client: TestClient) -> None:
    text = client.get("/").text
    root = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    outline = Outline(text)
    assert {tag for tag, _ in outline.elements} == TAGS - {"br"}
    assert root.get("lang") == "en"
    assert [tag for tag, _ in outline.elements if tag in {"h1", "h2"}] == ["h1", "h2", "h2", "h2"]
    ids = outline.values("id")
    assert len(set(ids)) == len(ids)
    assert set(outline.values("aria-labelledby")) <= set(ids)
    assert all(attrs.get("scope") in {"col", "row"} for tag, attrs in outline.elements if tag == "th")
    # What scrolls can be reached from the keyboard.
    assert [attrs["tabindex"] for _, attrs in outline.elements if attrs.get("class") == "scroll"] == ["0"]
    assert any(attrs.get("name") == "viewport" for _, attrs in outline.elements)


def test_nothing_comes_from_elsewhere_and_nothing_runs(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src data:;")
    assert page.headers["x-content-type-options"] == "nosniff"
    outline = Outline(page.text)
    assert not {"script", "style", "iframe", "form"} & {tag for tag, _ in outline.elements}
    assert not [name for _, attrs in outline.elements for name in attrs if name.startswith("on") or name == "style"]
    assert not [link for link in outline.values("href") + outline.values("src") if re.match("[a-z]+://|//", link)]
    assert b"url(" not in STYLE
    assert b"@import" not in STYLE


def test_the_style_is_sent_once(client: TestClient) -> None:
    style = client.get("/overview.css")
    assert (style.headers["content-type"], style.content) == ("text/css; charset=utf-8", STYLE)
    again = client.get("/overview.css", headers={"if-none-match": style.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_have_contrast_in_both_schemes(scheme: int) -> None:
    """WCAG 2.2: 4.5 to 1."""
    colours = {name: found[scheme] for name in ("ink", "ground", "link", "good", "bad") if (found := colours_of(name))}
    ground = luminance(colours.pop("ground"))
    for name, colour in colours.items():
        high, low = sorted((ground, luminance(colour)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def colours_of(name: str) -> list[str]:
    return re.findall(rf"--{name}: (#[0-9a-f]{{6}})", STYLE.decode())


@pytest.fixture(scope="module")
def host(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_server(GRANIAN, served_bundles, tmp_path_factory.mktemp("host")) as started:
        yield started


def test_the_host_sends_the_page_and_its_headers(host: ServerProcess) -> None:
    status, headers, body = ask(host.port, "GET", "/")
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert "content-security-policy" in headers
    tag = ask(host.port, "GET", "/overview.css")[1]["etag"]
    assert ask(host.port, "GET", "/overview.css", if_none_match=tag)[::2] == (304, b"")
    assert ask(host.port, "HEAD", "/")[::2] == (200, b"")
    assert b"tiny-chat" in body


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page(host: ServerProcess, tmp_path: Path) -> None:
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--window-size=360,800"]
    command = [BROWSER, *options, "--enable-logging=stderr", "--dump-dom", f"{host.address}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "The service is ready." in done.stdout
    assert "Content Security Policy" not in done.stderr
