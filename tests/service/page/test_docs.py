"""The API page in Chromium: lists every route, sends a request, passes axe-core."""

import pytest
from playwright.sync_api import expect

from tests.service.conftest import Service
from tests.service.page.conftest import Open, address, violations


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (320, "dark")])
def test_every_route_is_shown(visit: Open, shown: Service, width: int, scheme: str) -> None:
    docs = visit(address(shown) + "docs", width=width, scheme=scheme)
    page = docs.page
    expect(page.locator("#routes")).not_to_have_attribute("aria-busy", "true")
    document = shown.get("/openapi.json").body
    routes = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert sorted(page.locator("#contents a").all_inner_texts()) == sorted(routes)
    assert violations(docs) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for link in page.locator("a[href^='#']").all():
        target = (link.get_attribute("href") or "")[1:]
        assert page.evaluate("id => document.getElementById(id) !== null", target), target


def test_a_request_is_sent_from_the_page(visit: Open, shown: Service) -> None:
    page = visit(address(shown) + "docs").page
    route = page.locator("section section", has=page.locator("h3", has_text="POST /predict"))
    route.get_by_role("button", name="Send").click()
    expect(route.locator("pre")).to_contain_text("Ingrid Solheim")
    route.get_by_label("Body of POST /predict").fill("{")
    route.get_by_role("button", name="Send").click()
    expect(route.locator("pre.wrong")).to_contain_text("invalid_json")
