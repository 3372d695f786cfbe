"""API keys and cross-origin requests in a real browser."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from service.settings import DEFAULT_MODEL
from tests.service.conftest import Service, Start
from tests.service.page.conftest import BRIDGE, Open, address

KEY = "a-key-of-the-page"
ASK = """async ([url, key]) => {
    const headers = {"Content-Type": "application/json", "X-Request-ID": "of-a-page"};
    headers.Authorization = `Bearer ${key}`;
    const body = JSON.stringify({question: "When was it opened?", context: "It was opened in 1931."});
    const response = await fetch(url + "predict", {method: "POST", headers, body});
    const {answer, error} = await response.json();
    const told = ["X-Request-ID", "Server-Timing"].map((name) => response.headers.get(name));
    return [response.status, answer ?? error.code, ...told];
}"""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><link rel="icon" href="data:,"><title>Another site</title>')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a page on another server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def guarded(start: Start, tmp_path_factory: pytest.TempPathFactory, origin: str) -> Service:
    file: Path = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEY)
    return start(QA_MODEL=str(DEFAULT_MODEL), QA_API_KEYS_FILE=str(file), QA_CORS_ORIGINS=origin)


def test_the_page_asks_for_the_key(visit: Open, guarded: Service) -> None:
    page = visit(address(guarded))
    page.ask("When was it opened?", BRIDGE)
    expect(page.page.locator("#key")).to_be_focused()
    page.page.keyboard.type(KEY)
    page.page.keyboard.press("Enter")
    page.settle()
    expect(page.page.locator("#answer")).to_have_text("1931")


def test_a_page_of_an_allowed_origin_asks_and_reads(visit: Open, guarded: Service, origin: str) -> None:
    page = visit(origin).page
    status, answer, identity, timing = page.evaluate(ASK, [address(guarded), KEY])
    assert (status, answer, identity) == (200, "1931", "of-a-page")
    assert "infer;dur=" in timing
    assert page.evaluate(ASK, [address(guarded), "wrong"])[:2] == [401, "unauthorized"]


def test_a_page_of_another_origin_reads_nothing(visit: Open, guarded: Service, origin: str) -> None:
    other = visit(origin.replace("127.0.0.1", "localhost"))  # another host is another origin
    outcome = other.page.evaluate(
        f"async (args) => ({ASK})(args).catch((error) => error.name)", [address(guarded), KEY]
    )
    assert outcome == "TypeError"
    assert any("CORS policy" in error for error in other.errors)
    other.errors.clear()
