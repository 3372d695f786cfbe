"""The page in a real Chromium before a real service: asked, broken, narrow, dark, checked by axe."""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import DEFAULT_MODEL
from tests.service.conftest import Service, Start

pytest.importorskip("playwright", reason="playwright is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from tests.service.browser import CHROMIUM, Visit, chromium
from tests.service.front import KEY, in_front_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on PATH")

BRIDGE = "The bridge was opened in 1931 by the mayor. \U0001f309 Its architect was Ida Nyström."
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown(start: Start) -> Service:
    """A service with the model that comes along."""
    return start(QA_MODEL=str(DEFAULT_MODEL))


@pytest.fixture
def visit(browser: Browser, shown: Service) -> Iterator[Open]:
    """Open the page; no visit may end with a complaint of the browser that the test did not expect."""
    visits: list[Visit] = []

    def begin(url: str = "", **how: Any) -> Visit:
        visits.append(Visit(browser, url or address(shown), **how))
        return visits[-1]

    yield begin
    for each in visits:
        complaints = [text for text in each.complaints if "Failed to load resource" not in text]
        each.close()
        assert not complaints


def address(service: Service) -> str:
    return f"http://{service.host}:{service.port}/"


def violations(visit: Visit) -> list[str]:
    found = Axe().run(visit.page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]
    ]


def test_an_answer_is_shown_in_its_text(visit: Open) -> None:
    page = visit()
    page.ask("Who was the architect?", BRIDGE)
    assert page.text("#answer") == "Ida Nyström"
    assert page.text("#text mark") == "Ida Nyström"  # behind a letter of two UTF-16 units
    assert page.page.text_content("#text") == BRIDGE
    assert page.text("#candidates [aria-pressed=true]").startswith("Ida Nyström")
    assert page.text("#status") == "Answer: Ida Nyström"


def test_candidates_are_marked_in_turn_by_mouse_and_keyboard(visit: Open) -> None:
    page = visit()
    page.ask("Who was the architect?", BRIDGE)
    chips = page.page.locator("#candidates button")
    assert chips.count() >= 3
    for place in range(chips.count()):
        if place % 2:
            chips.nth(place).focus()
            page.page.keyboard.press("Enter")
        else:
            chips.nth(place).click()
        expect(chips.nth(place)).to_have_attribute("aria-pressed", "true")
        assert page.page.locator("#candidates [aria-pressed=true]").count() == 1
        assert page.text("#text mark") == chips.nth(place).locator("span").inner_text()
        assert page.page.text_content("#text") == BRIDGE
        assert "%" in chips.nth(place).locator("small").inner_text()


def test_bars_stand_under_the_likely_tokens(visit: Open) -> None:
    page = visit()
    page.ask("When was the bridge opened?", BRIDGE)
    year = page.page.locator("#text .token", has_text="1931")
    size = year.evaluate("element => getComputedStyle(element).backgroundSize")
    start, end = (
        float(part.split("%")[0].rpartition("(")[2].rpartition(" ")[2]) for part in size.split("3px,")
    )
    assert start > 50, size
    assert end > 50, size
    assert "start" in (year.get_attribute("title") or "")
    page.page.click("text=Likeliest tokens")
    assert page.text("#tokens tr:first-child").startswith("1931")


def test_the_time_is_split_into_stages(visit: Open) -> None:
    page = visit()
    page.ask("When was the bridge opened?", BRIDGE)
    assert page.page.locator("#stages dt").all_inner_texts() == ["Tokenize", "Wait", "Infer", "Decode"]
    assert all(text.endswith(" ms") for text in page.page.locator("#stages dd").all_inner_texts())
    assert "ms in all" in page.text("#total")


def test_no_answer_is_an_answer(visit: Open) -> None:
    page = visit()
    page.ask("How many goals did the visiting team score?", BRIDGE, may_decline=True)
    assert page.text("#answer-kind") == "No answer"
    assert page.text("#answer") == "The text does not seem to say."
    assert page.page.locator("#text mark").count() == 0
    page.page.locator("#candidates button").nth(1).click()
    assert page.page.locator("#text mark").count() == 1
    page.ask("Which?", " \n.", may_decline=True)
    assert page.page.text_content("#text") in (" \n.", "")


@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_example_is_one_click(visit: Open, place: int) -> None:
    page = visit()
    page.example(place)
    assert page.text("#answer")
    assert page.page.text_content("#text") == page.page.input_value("#context")
    assert page.page.input_value("#question")
    if page.page.locator("#text mark").count():
        expect(page.page.locator("#text mark")).to_be_in_viewport()


def test_the_curl_line_asks_the_same(visit: Open) -> None:
    page = visit()
    page.ask("Who's the architect?", BRIDGE)
    page.page.click("#copy")
    expect(page.page.locator("#copy")).to_have_text("Copied")
    line = page.page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, text=True)
    assert shlex.split(line)[0] == "curl"
    assert json.loads(done.stdout)["answer"] == page.text("#answer")


def test_what_answers_is_told(visit: Open) -> None:
    page = visit()
    expect(page.page.locator("#info")).to_contain_text("ONNX Runtime")
    for part in ("int8", "F1", "SQuAD v1.1", "MB"):
        assert part in page.text("#info")
    assert "F1" in page.text("#model")


def test_a_text_file_is_opened_or_dropped(visit: Open, tmp_path: Path) -> None:
    page = visit()
    file = tmp_path / "bridge.txt"
    file.write_text(BRIDGE, encoding="utf-8")
    page.page.set_input_files("#file", file)
    expect(page.page.locator("#context")).to_have_value(BRIDGE)
    page.page.evaluate(
        """text => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], "other.txt", { type: "text/plain" }));
            const tell = kind => document.body.dispatchEvent(
                new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
            tell("dragover");
            tell("drop");
        }""",
        "dropped",
    )
    expect(page.page.locator("#context")).to_have_value("dropped")
    assert page.text("#size") == "7 characters"
    file.write_bytes(b"\x89PNG\x00\xff")
    page.page.set_input_files("#file", file)
    expect(page.page.locator("#problem-title")).to_have_text("bridge.txt is not a text file")


@pytest.mark.parametrize(
    ("question", "context", "field", "title"),
    [("", BRIDGE, "question", "There is no question yet"), ("Who?", "", "context", "There is no text yet")],
)
def test_what_is_missing_is_said_at_its_field(
    visit: Open, question: str, context: str, field: str, title: str
) -> None:
    page = visit()
    page.ask(question, context)
    assert page.text("#problem-title") == title
    assert page.text(f"#{field}-problem") == title
    expect(page.page.locator(f"#{field}")).to_be_focused()
    expect(page.page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")
    assert not violations(page)
    page.ask("When was it opened?", BRIDGE)
    expect(page.page.locator("#problem")).to_be_hidden()
    assert page.page.get_attribute(f"#{field}", "aria-invalid") is None


def test_refusals_of_the_service_are_told_in_its_words(visit: Open, start: Start) -> None:
    late = start(QA_MODEL=str(DEFAULT_MODEL), QA_DEADLINE_SECONDS="0.001", QA_MAX_BODY_BYTES="3000")
    page = visit(address(late))
    page.ask("When was it opened?", BRIDGE)
    assert page.text("#problem-kind").startswith("Error 504")
    assert page.text("#problem-title") == "The answer took too long"
    assert page.text("#problem-text")
    page.page.click("#again")
    page.settle()
    assert page.text("#problem-kind").startswith("Error 504")
    expect(page.page.locator("#info")).to_contain_text("ONNX Runtime")
    page.ask("When was it opened?", BRIDGE * 80)
    assert page.text("#problem-title") == "The text is too long"
    late.stop()
    page.ask("When was it opened?", BRIDGE)
    assert page.text("#problem-title") == "The service cannot be reached"
    assert not violations(page)


@pytest.mark.parametrize(
    ("reply", "kind", "title"),
    [
        (
            {
                "status": 429,
                "headers": {"Retry-After": "2"},
                "json": {"error": {"code": "overloaded", "message": "Full."}},
            },
            "Error 429, overloaded",
            "The service is busy",
        ),
        ({"status": 502, "body": "<html>Bad gateway"}, "Error 502", "The service failed"),
        ({"status": 200, "body": "<html>Sign in"}, "Error 200", "The reply is not the service's"),
    ],
    ids=["busy", "gateway", "portal"],
)
def test_what_stands_between_may_fail_too(visit: Open, reply: dict[str, Any], kind: str, title: str) -> None:
    page = visit()

    def answer(route: Route) -> None:
        route.fulfill(**reply)

    page.page.route("**/predict", answer)
    page.ask("When was it opened?", BRIDGE)
    assert page.text("#problem-kind") == kind
    assert page.text("#problem-title") == title
    if reply["status"] == 429:
        expect(page.page.locator("#again")).to_be_disabled()
        assert "s" in page.text("#again")
    page.page.unroute("**/predict")
    page.page.click("#again")  # waits until it may
    page.settle()
    assert page.text("#answer")


def test_it_works_behind_a_prefix_and_with_a_key(visit: Open, shown: Service) -> None:
    with in_front_of(shown) as url:
        page = visit(url)
        page.ask("Who was the architect?", BRIDGE)
        assert page.text("#problem-title") == "An API key is needed"
        expect(page.page.locator("#key")).to_be_focused()
        assert not violations(page)
        page.page.keyboard.type(KEY)
        page.page.keyboard.press("Enter")
        page.settle()
        assert page.text("#answer") == "Ida Nyström"
        assert KEY not in page.text("#curl")
        assert "$API_KEY" in page.text("#curl")
        assert url + "predict" in page.text("#curl")
        expect(page.page.locator("#info")).to_contain_text("ONNX Runtime")
        page.page.reload()
        assert page.page.input_value("#key") == KEY
        assert page.page.evaluate("localStorage.length + document.cookie.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_axe_finds_nothing_and_nothing_sticks_out(visit: Open, width: int, scheme: str) -> None:
    page = visit(width=width, scheme=scheme)
    expect(page.page.locator("#info")).to_contain_text("ONNX Runtime")

    def check() -> None:
        assert not violations(page)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width

    check()
    background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    for place in (1, 2, 3):
        page.example(place)
        page.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        check()
    page.ask("Who was the architect?", "Nyström" * 40 + ". " + BRIDGE)
    check()
    page.ask("", BRIDGE)
    check()


def test_everything_is_reached_by_keyboard(visit: Open) -> None:
    page = visit()
    expect(page.page.locator("#examples button")).to_have_count(3)
    page.page.focus("#context")
    page.page.keyboard.type(BRIDGE)
    page.page.keyboard.press("Tab")
    page.page.keyboard.type("Who was the architect?")
    page.page.keyboard.press("Tab")
    expect(page.page.locator("#ask")).to_be_focused()
    page.page.keyboard.press("Enter")
    page.settle()
    seen = set()
    for _ in range(30):
        page.page.keyboard.press("Tab")
        seen.add(
            page.page.evaluate("document.activeElement.id || document.activeElement.parentNode.parentNode.id")
        )
    assert {"decline", "key-box", "examples", "candidates", "text", "copy", "curl", "open"} - seen <= {
        "key-box"
    }
    page.page.focus("#context")
    page.page.keyboard.press("Control+Enter")
    page.settle()
    assert page.text("#answer")


def test_the_newest_question_wins(visit: Open) -> None:
    page = visit()
    page.page.uncheck("#decline")
    page.page.click("#examples li:nth-child(3) button")
    page.ask("Who was the architect?", BRIDGE)
    page.page.wait_for_timeout(300)
    assert page.text("#answer") == "Ida Nyström"
    assert page.page.text_content("#text") == BRIDGE
