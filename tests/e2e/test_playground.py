"""A browser tries every view of the playground on a real service with the bundles of this checkout."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import TIMEOUT_MS, VIEWS, WatchedPage, running_browser, serious_faults, watched_page
from tests.e2e.serving import ROOT, environment

SEVEN = ROOT / "docs" / "examples" / "seven.png"
STROKES = [((0.3, 0.22), (0.7, 0.21)), ((0.7, 0.21), (0.47, 0.82))]  # of a seven, in parts of the pad
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def browser(server: str) -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture
def watched(browser: Browser, server: str) -> Iterator[WatchedPage]:
    with watched_page(browser, server) as page:
        yield page


def _draw(page: Page) -> None:
    page.get_by_role("button", name="Draw a 7").click()
    expect(page.get_by_test_id("digit")).to_contain_text("7")


def _write(page: Page) -> None:
    page.get_by_label("Length, in tokens").fill("9")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_test_id("told")).to_contain_text("tokens;")


def _read_card(page: Page) -> None:
    page.get_by_text("Model card, with plots").click()
    page.get_by_role("heading", name="Provenance").wait_for()


# What makes a view show an answer.
ANSWERED: dict[str, Callable[[Page], None]] = {
    "draw": _draw,
    "picture": lambda page: page.locator("input[type=file]").set_input_files(SEVEN),
    "text": lambda page: page.get_by_test_id("words").wait_for(),
    "series": lambda page: page.locator(".chart").wait_for(),
    "write": _write,
    "images": lambda page: expect(page.get_by_test_id("grid").locator("img")).to_have_count(24),
    "form": lambda page: page.get_by_role("button", name="Predict").click(),
    "models": _read_card,
    "live": lambda page: expect(page.get_by_test_id("tiles")).to_contain_text("Memory"),
}


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model", exact=True).select_option(model)


def wait_for(page: Page, condition: str) -> None:
    """Playwright's own way evaluates text in the page, which the policy of the page forbids."""
    end = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def code(page: Page, language: str) -> str:
    page.get_by_role("button", name=language, exact=True).click()
    return page.locator(".code pre").inner_text()


def test_a_drawn_seven_is_read_while_it_is_drawn(watched: WatchedPage) -> None:
    page = watched.open("draw")
    choose(page, "mnist-cnn")
    answers: list[str] = []
    page.on("response", lambda response: answers.append(response.url))
    box = page.locator("canvas.pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + STROKES[0][0][0] * box["width"], box["y"] + STROKES[0][0][1] * box["height"])
    page.mouse.down()
    for (x0, y0), (x1, y1) in STROKES:
        for step in range(1, 13):
            x, y = x0 + (x1 - x0) * step / 12, y0 + (y1 - y0) * step / 12
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    expect(page.get_by_test_id("digit")).to_contain_text("7")
    before = watched.posted("/classify")
    assert before >= 2, "the probabilities move while the pen is down"
    assert before <= len([url for url in answers if url.endswith("/classify")]) + 1, "one request is in flight"
    page.mouse.up()
    expect(page.locator(".bars .best .bar-label")).to_have_text("7")
    page.get_by_role("button", name="Draw a 3").click()
    expect(page.get_by_test_id("digit")).to_contain_text("3")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_test_id("digit")).to_contain_text("draw something")


def test_every_example_digit_is_read(watched: WatchedPage) -> None:
    page = watched.open("draw")
    choose(page, "mnist-cnn")
    for digit in range(10):
        page.get_by_role("button", name=f"Draw a {digit}").click()
        expect(page.get_by_test_id("digit").locator("span")).to_have_text(str(digit))


def test_pictures_come_from_a_file_the_clipboard_and_the_camera(watched: WatchedPage) -> None:
    page = watched.open("picture")
    choose(page, "mnist-cnn")
    page.locator("input[type=file]").set_input_files(SEVEN)
    expect(page.locator(".bars .best .bar-label")).to_have_text("7")
    assert "--data-binary @'seven.png'" in code(page, "curl")

    watched.refused = {422}
    choose(page, "cifar10-cnn")
    expect(page.get_by_text("Sent as a PNG of 32 × 32 pixels; yours has 28 × 28.")).to_be_visible()
    page.get_by_label("Make it fit in this page").uncheck()
    expect(page.get_by_role("alert")).to_contain_text("422 invalid-request")
    expect(page.get_by_role("alert")).to_contain_text("expected an image of 32 x 32")
    page.get_by_label("Make it fit in this page").check()
    expect(page.get_by_role("alert")).to_have_count(0)

    posted = watched.posted("/predict")
    page.get_by_role("button", name="Use the camera").click()
    wait_for(page, "document.querySelector('video')?.videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    expect(
        page.get_by_text(re.compile(r"Sent as a PNG of 32 × 32 pixels; yours has \d{3,} × \d{3,}\."))
    ).to_be_visible()
    assert watched.posted("/predict") > posted
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(50, 40);
            canvas.getContext("2d").fillRect(10, 10, 20, 20);
            const data = new DataTransfer();
            data.items.add(new File([await canvas.convertToBlob()], "pasted.png", { type: "image/png" }));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }"""
    )
    expect(page.get_by_text("yours has 50 × 40.")).to_be_visible()


def test_a_label_changes_with_the_words_and_the_words_that_matter_are_tinted(watched: WatchedPage, server: str) -> None:
    page = watched.open("text")
    choose(page, "news-lstm")
    best = page.locator(".bars .best .bar-label")
    expect(best).to_have_text("Python internet")
    text = "Return the square root of a decimal number, rounded to the given number of digits."
    page.get_by_label("Text", exact=True).fill(text)
    expect(best).to_have_text("Python numbers")
    words = page.get_by_test_id("words")
    expect(words).to_have_text(text)
    assert words.locator(".for4, .for3").count() >= 1
    page.get_by_text("As a table").click()
    rows = page.locator("details table tbody tr")
    assert rows.count() == len(text.split())

    whole, without = (
        httpx.post(f"{server}/predict", json={"model": "news-lstm", "texts": [each], "top_k": 4}).json()["predictions"]
        for each in (text, text.replace(rows.first.locator("th").inner_text(), "", 1))
    )
    left = next(each["probability"] for each in without[0]["top"] if each["label"] == whole[0]["label"])
    assert rows.first.locator("td").first.inner_text() == f"{100 * left:.1f} %"


def test_a_series_is_answered_step_by_step(watched: WatchedPage) -> None:
    page = watched.open("series")
    choose(page, "vowels-lstm-stateful")
    expect(page.get_by_role("img", name=re.compile("Probability after each step"))).to_be_visible()
    expect(page.locator(".bars .best .bar-label")).to_have_text("speaker 3")
    steps = page.get_by_label(re.compile("Steps, as CSV or JSON"))
    steps.fill("1, 2\n3, 4")
    expect(page.get_by_role("alert")).to_have_text("Step 1: expected 12 numbers, got 2.")
    steps.fill((ROOT / "docs" / "examples" / "vowel.json").read_text())
    expect(page.locator(".bars .best .bar-label")).to_have_text("speaker 3")
    before = steps.input_value()
    curve = page.locator(".curve")
    box = curve.bounding_box()
    assert box is not None
    curve.hover(position={"x": box["width"] / 2, "y": 8})
    page.mouse.down()
    page.mouse.up()
    assert steps.input_value() != before


def test_a_text_streams_stops_and_shows_what_else_was_probable(watched: WatchedPage) -> None:
    page = watched.open("write")
    page.get_by_label("Length, in tokens").fill("250")
    temperature = page.get_by_label("Temperature")
    temperature.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(temperature).to_have_value("0.85")
    # A slow line: on a fast machine, all tokens would have come before the click.
    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": 10_000, "uploadThroughput": -1}
    line.send("Network.emulateNetworkConditions", slow)
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator("[data-token='1']").wait_for()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_test_id("told")).to_contain_text("Stopped after")
    stopped = page.locator("[data-token]").count()
    assert 2 <= stopped < 250
    line.send("Network.emulateNetworkConditions", {**slow, "downloadThroughput": -1})

    page.get_by_label("Length, in tokens").fill("12")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_test_id("told")).to_contain_text("12 tokens; the length that you chose is reached.")
    expect(page.locator("[data-token]")).to_have_count(12)
    page.locator("[data-token='0']").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[data-token='1']")).to_be_focused()
    expect(page.get_by_test_id("alternatives")).to_contain_text("had a probability of")
    assert page.get_by_test_id("alternatives").locator("li").count() >= 5
    body = json.loads(code(page, "curl").partition("-d '")[2].removesuffix("'"))
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.85, 12, True)


def test_pictures_are_generated_and_turn_into_each_other(watched: WatchedPage) -> None:
    page = watched.open("images")
    grid = page.get_by_test_id("grid").locator("img")
    expect(grid).to_have_count(24)
    first = grid.first.get_attribute("src")
    page.get_by_label("Pictures", exact=True).fill("5")
    expect(grid).to_have_count(5)
    assert grid.first.get_attribute("src") == first, "a picture of a seed does not depend on the count"
    morph = page.get_by_test_id("morph")
    expect(morph).to_have_attribute("src", first or "")
    page.get_by_label("Step", exact=True).fill("15")
    expect(morph).not_to_have_attribute("src", first or "")
    page.get_by_label("Seed", exact=True).fill("2")
    expect(grid.first).not_to_have_attribute("src", first or "")
    page.get_by_label("Step", exact=True).fill("0")
    expect(morph).to_have_attribute("src", grid.first.get_attribute("src") or "")


def test_models_show_their_proof_and_their_card(watched: WatchedPage) -> None:
    page = watched.open("models")
    page.get_by_role("button", name=re.compile("^mnist-cnn")).click()
    details = page.get_by_role("region", name=re.compile("^mnist-cnn"))
    for text in ("faulty graphs refused at export", "bitwise: not one bit depends on the batch", "Parity with PyTorch"):
        expect(details).to_contain_text(text)
    page.get_by_text("Model card, with plots").click()
    plot = page.get_by_role("img", name="Confusion matrix on the test split")
    expect(plot).to_be_visible()
    wait_for(page, "[...document.querySelectorAll('.plot')].every((each) => each.querySelector('img')?.naturalWidth)")


def test_live_numbers_move(watched: WatchedPage, server: str) -> None:
    page = watched.open("live")
    tiles = page.get_by_test_id("tiles")
    expect(tiles).to_contain_text("Requests a second")
    for _ in range(3):
        httpx.post(f"{server}/predict", json={"model": "news-lstm", "texts": ["a"]})
    expect(page.get_by_role("img", name=re.compile(r"Latency.*median: [\d.]+ ms"))).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    asked = len(watched.requests)
    page.wait_for_timeout(1500)
    assert not [url for _, url in watched.requests[asked:] if url.endswith("/metrics")]


def test_the_code_gives_the_answer_that_the_page_shows(watched: WatchedPage, server: str, tmp_path: Path) -> None:
    page = watched.open("text")
    choose(page, "news-lstm")
    expect(page.locator(".bars .best .bar-label")).to_have_text("Python internet")
    body = json.loads(code(page, "curl").partition("-d '")[2].removesuffix("'"))
    answer = httpx.post(f"{server}/predict", json=body).json()["predictions"][0]
    (tmp_path / "ask.mjs").write_text(code(page, "JavaScript"))
    commands = {
        "curl": ["bash", "-euc", code(page, "curl")],
        "client": [sys.executable, "-c", code(page, "Python")],
        "library": [sys.executable, "-c", code(page, "Python, no packages")],
        "javascript": ["node", str(tmp_path / "ask.mjs")],
    }
    for command in commands.values():
        if shutil.which(command[0]) is None:
            continue
        env = environment(PYTHONPATH=str(ROOT))
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert str(answer["probability"]) in done.stdout


def test_no_view_has_a_serious_fault_of_accessibility(browser: Browser, server: str) -> None:
    """The schemes differ in their colours alone, so the second one is checked for contrast."""
    with watched_page(browser, server, color_scheme="light", reduced_motion="reduce") as watched:
        for view in VIEWS:
            page = watched.open(view)
            expect(page.get_by_text(re.compile(r"^\d+ of \d+ ready$"))).to_be_visible()
            ANSWERED[view](page)
            assert (view, serious_faults(page)) == (view, [])
            page.get_by_role("button", name="Switch between light and dark").click()
            assert (view, "dark", serious_faults(page, "color-contrast")) == (view, "dark", [])
            page.get_by_role("button", name="Switch between light and dark").click()


def test_the_page_fits_a_phone_and_its_views_are_reached_by_the_keyboard(browser: Browser, server: str) -> None:
    with watched_page(browser, server) as watched:
        watched.page.set_viewport_size({"width": 360, "height": 740})
        for view in VIEWS:
            page = watched.open(view)
            expect(page.locator(".tabs [aria-current]")).to_be_in_viewport()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        page = watched.open("draw")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the view")).to_be_focused()
        page.get_by_role("link", name="Text", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Type a text")).to_be_visible()
        page.get_by_role("button", name="Switch between light and dark").press("Enter")
        assert page.evaluate("document.documentElement.dataset.scheme") == "dark"
        page.reload()
        assert page.evaluate("document.documentElement.dataset.scheme") == "dark"
