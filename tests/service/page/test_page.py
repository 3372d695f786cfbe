"""The page in normal use: mouse, keyboard, narrow screens, dark scheme; checked by axe-core."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.service.page.conftest import BRIDGE, Open, violations


def test_an_answer_is_shown_in_its_text(visit: Open) -> None:
    page = visit()
    page.ask("Who was the architect?", BRIDGE)
    assert page.text("#answer") == "Ida Nyström"
    assert page.text("#text mark") == "Ida Nyström"  # after a character of two UTF-16 code units
    assert page.page.text_content("#text") == BRIDGE
    assert page.text("#candidates [aria-pressed=true]").startswith("Ida Nyström")
    assert page.text("#status") == "Answer: Ida Nyström"


def test_candidates_are_highlighted_by_mouse_and_keyboard(visit: Open) -> None:
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


def test_likely_tokens_have_probability_bars(visit: Open) -> None:
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


def test_no_answer_is_shown(visit: Open) -> None:
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
def test_an_example_takes_one_click(visit: Open, place: int) -> None:
    page = visit()
    page.example(place)
    assert page.text("#answer")
    assert page.page.text_content("#text") == page.page.input_value("#context")
    assert page.page.input_value("#question")
    if page.page.locator("#text mark").count():
        expect(page.page.locator("#text mark")).to_be_in_viewport()


def test_the_curl_command_gives_the_same_answer(visit: Open) -> None:
    page = visit()
    page.ask("Who's the architect?", BRIDGE)
    page.page.click("#copy")
    expect(page.page.locator("#copy")).to_have_text("Copied")
    line = page.page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, text=True)
    assert shlex.split(line)[0] == "curl"
    assert json.loads(done.stdout)["answer"] == page.text("#answer")


def test_the_page_shows_the_model(visit: Open) -> None:
    page = visit()
    expect(page.page.locator("#info")).to_contain_text("ONNX Runtime")
    for part in ("int8", "F1", "SQuAD v1.1", "MB"):
        assert part in page.text("#info")
    assert "F1" in page.text("#model")


def test_a_text_file_is_opened_or_dragged_in(visit: Open, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_axe_finds_no_violation_and_nothing_overflows(visit: Open, width: int, scheme: str) -> None:
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
