"""Opens the page in Chromium; `python -m tests.service.page.browser URL FILE` takes a screenshot."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        # The sandbox needs privileges that containers rarely have; only the service's page is opened.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A visit to the page in a new browser context, with the errors that the browser reports."""

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1200, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        self.page.goto(url)

    def ask(self, question: str, context: str, *, may_decline: bool = False) -> None:
        """Fill in both fields, submit, and wait for the answer or the error."""
        self.page.set_checked("#decline", may_decline)
        self.page.fill("#context", context)
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")
        self.settle()

    def example(self, place: int) -> None:
        """Click an example (counted from 1)."""
        self.page.click(f"#examples li:nth-child({place}) button")
        self.settle()

    def settle(self) -> None:
        """Wait until the service has replied."""
        expect(self.page.locator("#ask")).to_have_attribute("aria-disabled", "false")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def close(self) -> None:
        self.page.context.close()


def main() -> None:
    """Take the README's screenshot of a running service's page."""
    url, file = sys.argv[1], Path(sys.argv[2])
    with chromium() as browser:
        visit = Visit(browser, url, width=1120)
        visit.page.wait_for_selector("#info dt")
        visit.page.uncheck("#decline")
        visit.example(1)
        visit.page.mouse.move(0, 0)
        visit.page.screenshot(path=file, clip={"x": 0, "y": 0, "width": 1120, "height": 1024}, full_page=True)


if __name__ == "__main__":
    main()
