"""Error states of the page: missing input, error responses, an unreachable service, proxies, API keys."""

from typing import Any

import pytest
from playwright.sync_api import Route, expect

from service.settings import DEFAULT_MODEL
from tests.service.conftest import Service, Start
from tests.service.page.conftest import BRIDGE, Open, address, violations
from tests.service.page.reverse_proxy import KEY, behind_proxy


@pytest.mark.parametrize(
    ("question", "context", "field", "title"),
    [("", BRIDGE, "question", "There is no question yet"), ("Who?", "", "context", "There is no text yet")],
)
def test_missing_input_is_reported_at_its_field(
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


def test_errors_of_the_service_are_shown(visit: Open, start: Start) -> None:
    late = start(QA_MODEL=str(DEFAULT_MODEL), QA_DEADLINE_SECONDS="0.001", QA_MAX_BODY_BYTES="3000")
    page = visit(address(late))
    page.ask("When was it opened?", BRIDGE * 15)  # takes more than a millisecond on any machine
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
def test_errors_of_a_proxy_are_shown(visit: Open, reply: dict[str, Any], kind: str, title: str) -> None:
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
    page.page.click("#again")  # waits until the button is enabled
    page.settle()
    assert page.text("#answer")


def test_it_works_behind_a_prefix_and_with_a_key(visit: Open, shown: Service) -> None:
    with behind_proxy(shown) as url:
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


def test_the_latest_question_wins(visit: Open) -> None:
    page = visit()
    page.page.uncheck("#decline")
    page.page.click("#examples li:nth-child(3) button")
    page.ask("Who was the architect?", BRIDGE)
    page.page.wait_for_timeout(300)
    assert page.text("#answer") == "Ida Nyström"
    assert page.page.text_content("#text") == BRIDGE
