"""A browser that is watched: whatever it asks for, and whatever it complains about, is recorded."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A camera that shows a test picture, and is lent without a question.
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
VIEWS = ("draw", "picture", "text", "series", "write", "images", "form", "models", "live")
SERIOUS = {"serious", "critical"}
TIMEOUT_MS = 30_000  # of a machine that is busy


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@dataclass(kw_only=True)
class WatchedPage:
    """A page of its own context. `refused` are the statuses of answers that a test expects to fail."""

    page: Page
    address: str
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, URL
    complaints: list[str] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    def open(self, view: str) -> Page:
        self.page.goto(f"{self.address}/playground#{view}")
        self.page.locator("main h1").wait_for(state="attached")
        return self.page

    def listen(self) -> None:
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("request", lambda request: self.requests.append((request.method, request.url)))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        failed = re.search(r"the server responded with a status of (\d+)", message.text)
        if message.type in {"error", "warning"} and not (failed and int(failed[1]) in self.refused):
            self.complaints.append(message.text)

    def check(self) -> None:
        """Fail if the console is not empty, or a request went to another origin."""
        assert not self.complaints
        assert self.requests
        elsewhere = [url for _, url in self.requests if not url.startswith((f"{self.address}/", "blob:", "data:"))]
        assert not elsewhere

    def posted(self, path: str) -> int:
        return sum(method == "POST" and url.startswith(self.address + path) for method, url in self.requests)


@contextlib.contextmanager
def watched_page(browser: Browser, address: str, **options: Any) -> Iterator[WatchedPage]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    watched = WatchedPage(page=context.new_page(), address=address)
    watched.listen()
    yield watched
    watched.check()
    context.close()


def serious_faults(page: Page, *rules: str) -> list[str]:
    """Return what axe-core calls serious or critical, by all rules or by these, with the elements."""
    chosen = {"runOnly": list(rules)} if rules else {}
    violations = Axe().run(page, options={"resultTypes": ["violations"], **chosen}).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for fault in violations
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]
