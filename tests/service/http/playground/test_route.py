"""The page and its assets: what is sent, under which policy, and that nothing in them comes from elsewhere."""

import asyncio
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import EkibenError
from service.http.playground.route import ASSET, ASSETS, FOLDER, ROUTES

VENDOR = FOLDER.parent / "vendor"
OWN_SCRIPTS = sorted(name for name in ASSETS if name.endswith(".js") and name != "vendor.js")
DIRECTIVES = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:", "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
}  # fmt: skip


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        assert not data.strip() or self.found[-1][0] not in {"script", "style"}, "code stands in the page"


@pytest.mark.parametrize("path", ["/", "/playground", "/playground/"])
def test_the_page_is_at_both_addresses(path: str, client: TestClient) -> None:
    page = client.get(path)
    assert (page.status_code, page.content) == (200, ASSETS["index.html"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert set(page.headers["content-security-policy"].split("; ")) == DIRECTIVES
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ASSETS)
def test_an_asset_is_sent_once(name: str, client: TestClient) -> None:
    first = client.get(f"/playground/{name}")
    assert (first.status_code, first.content) == (200, ASSETS[name])
    assert set(first.headers["content-security-policy"].split("; ")) == DIRECTIVES
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(f"/playground/{name}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "route.py", "../route.py", "%2e%2e/vendor/build.sh", "build.sh", ""])
def test_nothing_else_is_sent(name: str, client: TestClient) -> None:
    found = client.get(f"/playground/x/{name}")
    assert (found.status_code, found.json()["code"]) == (404, "unknown-route")


def test_a_service_without_it_answers_that_there_is_none() -> None:
    state: Any = SimpleNamespace(has_playground=False)
    request: Any = SimpleNamespace(path="/playground/app.js")
    for route in (*ROUTES, ASSET):
        with pytest.raises(EkibenError, match="this service has no playground") as caught:
            asyncio.run(route.handle(state, request))  # type: ignore[call-arg, arg-type]
        assert caught.value.slug == "unknown-route"


def test_the_page_runs_nothing_that_stands_in_it_and_loads_what_there_is(client: TestClient) -> None:
    elements = Elements(ASSETS["index.html"])
    attributes = [(name, value or "") for _, attrs in elements.found for name, value in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "style"]
    links = [value for name, value in attributes if name in {"href", "src"}]
    assert {"playground/app.js", "playground/base.css", "playground/icon.svg", "models", "readyz"} <= set(links)
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


@pytest.mark.parametrize("name", OWN_SCRIPTS)
def test_scripts_import_what_is_there_and_never_read_text_as_code(name: str) -> None:
    text = ASSETS[name].decode()
    imported = re.findall(r'(?:import|from) "\./([^"]+)"', text)
    assert set(imported) <= set(ASSETS)
    assert not re.findall(r"\beval\(|new Function|innerHTML|outerHTML|document\.write|insertAdjacentHTML", text)
    assert not re.findall(r"https?://", text), "an address of another origin"
    assert len(text.splitlines()) < 250


def test_styles_load_nothing() -> None:
    styles = [body.decode() for name, body in ASSETS.items() if name.endswith(".css")]
    assert len(styles) == 2
    assert not [text for text in styles if "url(" in text or "@import" in text]


def test_the_example_series_is_that_of_the_documents() -> None:
    text = ASSETS["examples.js"].decode()
    rows = json.loads("[" + text[text.index("[\n") + 2 : text.rindex("]")].rstrip().removesuffix(",") + "]")
    vowel = json.loads((Path("docs") / "examples" / "vowel.json").read_text())
    assert rows == vowel["sequences"][0]


def test_licences_of_the_libraries_stand_beside_them() -> None:
    package = json.loads((VENDOR / "package.json").read_text())
    licences = ASSETS["vendor.LICENSE.txt"].decode()
    for name in ("preact", "htm"):
        assert f"vendor.js contains {name} {package['dependencies'][name]}:" in licences
    assert "Permission is hereby granted" in licences
    assert "Apache License" in licences


def test_the_libraries_are_those_of_the_lock_file(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (apt-get install npm)")
    build = subprocess.run(
        ["bash", VENDOR / "build.sh", tmp_path], capture_output=True, text=True, check=False, timeout=240
    )
    if "npm error code E" in build.stderr and "registry" in build.stderr:
        pytest.skip(f"npm cannot reach its registry: {build.stderr[:200]}")
    assert build.returncode == 0, build.stderr
    for name in ("vendor.js", "vendor.LICENSE.txt"):
        assert (tmp_path / name).read_bytes() == ASSETS[name], "make playground"
