"""Fixtures that open the page of a running service in Chromium; skipped without Chromium."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from service.settings import DEFAULT_MODEL
from tests.service.conftest import Service, Start
from tests.service.page.browser import CHROMIUM, Visit, chromium

BRIDGE = "The bridge was opened in 1931 by the mayor. \U0001f309 Its architect was Ida Nyström."
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on PATH")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown(start: Start) -> Service:
    """A service with the default model."""
    return start(QA_MODEL=str(DEFAULT_MODEL))


@pytest.fixture
def visit(browser: Browser, shown: Service) -> Iterator[Open]:
    """Open the page; fails if the browser reported an error that the test did not clear."""
    visits: list[Visit] = []

    def begin(url: str = "", **how: Any) -> Visit:
        visits.append(Visit(browser, url or address(shown), **how))
        return visits[-1]

    yield begin
    for each in visits:
        errors = [text for text in each.errors if "Failed to load resource" not in text]
        each.close()
        assert not errors


def address(service: Service) -> str:
    return f"http://{service.host}:{service.port}/"


def violations(visit: Visit) -> list[str]:
    found = Axe().run(visit.page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]
    ]
