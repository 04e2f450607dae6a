"""The playground of a service with keys, with models of every kind and one that is broken."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from service.manifest import MODEL
from tests.e2e.browser import TIMEOUT_MS, WatchedPage, running_browser, serious_faults, watched_page
from tests.service.bundles import NAMES, write_bundle
from tests.service.conftest import served_bundles
from tests.service.hosts import GRANIAN, ask, running_server, wait_until
from tests.service.key_files import write_keys
from tests.service.pairs import write_with_requests

__all__ = ["served_bundles"]
BROKEN = NAMES["series-classifier"]
expect.set_options(timeout=TIMEOUT_MS)


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """A service with keys, some of whose models are READY."""

    address: str
    keys: dict[str, str]


@pytest.fixture(scope="module")
def keyed(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    root, home = tmp_path_factory.mktemp("keyed"), tmp_path_factory.mktemp("home")
    for name in ("tiny-customers", "tiny-prices", "tiny-tensors"):
        write_with_requests(root, tmp_path_factory.mktemp("staging"), name)
    (root / "tiny-chat").symlink_to(served_bundles / "tiny-chat")
    (write_bundle(root, "series-classifier") / MODEL).write_bytes(b"broken")
    keys = write_keys(home / "keys", all="scopes=infer,models,metrics", infer="scopes=infer", models="scopes=models")
    with running_server(GRANIAN, root, home, EKIBEN_KEYS=str(home / "keys"), EKIBEN_READY_WHEN="any") as server:
        wait_until(lambda: ask(server.port, "GET", "/models", x_api_key=keys["all"])[2].count(b'"READY"') == 4)
        yield Keyed(address=server.address, keys=keys)


@pytest.fixture(scope="module")
def browser(keyed: Keyed) -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture
def watched(browser: Browser, keyed: Keyed) -> Iterator[WatchedPage]:
    with watched_page(browser, keyed.address) as page:
        page.refused = {401, 403, 503}
        yield page


def enter_key(page: Page, key: str) -> None:
    if not page.get_by_label("Key of this service").is_visible():
        page.locator(".key summary").click()
    page.get_by_label("Key of this service").fill(key)
    page.get_by_role("button", name="Use it").click()
    page.locator(".key summary").click()


def test_a_key_is_asked_for_and_the_scope_that_it_lacks_is_named(watched: WatchedPage, keyed: Keyed) -> None:
    page = watched.open("models")
    expect(page.get_by_role("alert")).to_contain_text("401 unauthorized")
    expect(page.get_by_role("alert")).to_contain_text("This service needs a key")
    enter_key(page, keyed.keys["infer"])
    expect(page.get_by_role("alert")).to_contain_text("403 forbidden")
    expect(page.get_by_role("alert")).to_contain_text("The key lacks the scope “models”.")
    enter_key(page, keyed.keys["models"])
    expect(page.get_by_text("4 of 5 ready")).to_be_visible()
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_role("alert")).to_contain_text("The key lacks the scope “metrics”.")
    assert page.evaluate("Object.values(sessionStorage)") == [keyed.keys["models"]]
    assert not [value for value in page.evaluate("Object.values(localStorage)") if keyed.keys["models"] in value]
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.get_by_text("4 of 5 ready")).to_be_visible()


def test_a_model_that_is_not_ready_is_shown_as_such(watched: WatchedPage, keyed: Keyed) -> None:
    page = watched.open("models")
    enter_key(page, keyed.keys["all"])
    page.get_by_role("button", name=re.compile(f"^{BROKEN}")).click()
    details = page.get_by_role("region", name=re.compile(f"^{BROKEN}"))
    expect(details).to_contain_text("FAILED")
    expect(details.get_by_role("alert")).to_contain_text("It is not ready")
    expect(details.get_by_role("alert")).to_contain_text("model.onnx has")
    assert serious_faults(page) == []


def test_forms_of_tables_and_tensors_check_what_is_sent(watched: WatchedPage, keyed: Keyed) -> None:
    page = watched.open("form")
    enter_key(page, keyed.keys["all"])
    page.get_by_label("Model", exact=True).select_option("tiny-customers")
    page.get_by_label("age", exact=True).fill("41")
    page.get_by_label("city").select_option("oslo")
    page.get_by_label("height").fill("9")
    page.get_by_role("button", name="Predict").click()
    assert watched.posted("/predict") == 0, "the browser refuses 9, which is above the column's bound"
    page.get_by_label("height").fill("1.8")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".bars li")).to_have_count(3)
    assert '"city": "oslo"' in page.locator(".code pre").inner_text()
    assert serious_faults(page) == []

    page.get_by_label("Model", exact=True).select_option("tiny-prices")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".facts")).to_contain_text("EUR")

    page.get_by_label("Model", exact=True).select_option("tiny-tensors")
    posted = watched.posted("/predict")
    page.get_by_label("points, as JSON").fill("[[1, 2, 3]]")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text("points[0]: expected 2 entries, got 3")
    page.get_by_label("points, as JSON").fill("[[1, 2], [3, 4]]")
    page.get_by_label("weights, as JSON").fill("[1.5, 2]")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text("weights[0]: expected a whole number, got 1.5")
    page.get_by_label("weights, as JSON").fill("[1]")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text("weights: expected 2 (batch) entries, got 1")
    assert watched.posted("/predict") == posted
    page.get_by_label("weights, as JSON").fill("[1, 2]")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("region", name="The answer").first).to_be_visible()


def test_a_chat_goes_on_and_no_code_holds_the_key(watched: WatchedPage, keyed: Keyed) -> None:
    page = watched.open("write")
    enter_key(page, keyed.keys["all"])
    page.get_by_label("Length, in tokens").fill("5")
    for number in (1, 2):
        page.get_by_label("Message").fill("ab")
        page.get_by_role("button", name="Generate", exact=True).click()
        expect(page.get_by_test_id("told")).to_contain_text("tokens;")
        expect(page.locator(".message.user")).to_have_count(number)
    for name in ("curl", "Python", "Python, no packages", "JavaScript"):
        page.get_by_role("button", name=name, exact=True).click()
        text = page.locator(".code pre").inner_text()
        assert "EKIBEN_KEY" in text
        assert keyed.keys["all"] not in text
    assert keyed.keys["all"] not in page.content()
