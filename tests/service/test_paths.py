"""Paths behind proxies: a prefix that is not stripped, trailing slashes, and headers that proxies add."""

import pytest

from tests.service.conftest import Connect, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_refusals import assert_error
from tests.service.wire import BODY, message


@pytest.fixture(scope="module")
def prefixed(start: Start) -> Service:
    return start(QA_ROOT_PATH="/answers/qa/")


def test_a_path_prefix_is_optional(prefixed: Service) -> None:
    for prefix in ("/answers/qa", ""):
        assert prefixed.ask(ITEM, path=f"{prefix}/predict").status == 200
        assert prefixed.ask(ITEM, path=f"{prefix}/predict/?a=b").status == 200
        assert prefixed.ask(ITEM, path=f"{prefix}/").status == 200
        assert prefixed.get(f"{prefix}/health/ready").status == 200
    assert prefixed.ask(ITEM, path="/answers/qa").status == 200
    for path in ("/answers/predict", "/answers/qapredict", "/answers/qa/answers/qa/predict"):
        assert_error(prefixed.ask(ITEM, path=path), 404, "not_found")


@pytest.mark.parametrize("path", ["/predict/", "/health/live/", "/health/ready/", "/info/", "/metrics/"])
def test_a_trailing_slash_is_allowed(service: Service, path: str) -> None:
    reply = service.ask(ITEM, path=path) if path == "/predict/" else service.get(path)
    assert reply.status == 200


def test_no_redirects(service: Service) -> None:
    for path in ("//predict", "/predict//", "/health//ready", "/./predict"):
        assert service.ask(ITEM, path=path).status in (200, 404)


def test_options_for_the_whole_server(service: Service, prefixed: Service, connect: Connect) -> None:
    """RFC 9110, 9.3.7: the reply has no body; no other method has the target `*`."""
    for server in (service, prefixed):
        wire = connect(server)
        reply = wire.ask(message(b"", line="OPTIONS * HTTP/1.1"))
        assert (reply.status, reply.data) == (204, b"")
        assert reply.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
        assert reply.headers["X-Request-ID"]
        assert "Content-Length" not in reply.headers
        assert wire.ask(message(BODY)).status == 200
        assert_error(wire.ask(message(b"", line="OPTIONS /* HTTP/1.1")), 404, "not_found")
        assert_error(wire.ask(message(b"", line="GET * HTTP/1.1")), 400, "bad_request")


@pytest.mark.parametrize("scheme", ["http", "https", "wss", "x, y"])
def test_proxy_headers_are_harmless(service: Service, connect: Connect, scheme: str) -> None:
    wire = connect(service)
    for other in ("http", "https", "ssl"):
        headers = [
            f"X-Forwarded-Proto: {scheme}",
            f"X-Forwarded-Protocol: {other}",
            f"X-Forwarded-Ssl: {'on' if other == 'ssl' else 'off'}",
            f"X-Forwarded-Prefix: /{scheme}",
            "X-Forwarded-For: unknown, 10.0.0.1",
            f"Forwarded: for=_x;proto={scheme}",
            "X-Script-Name: /elsewhere",
            "SCRIPT_NAME: /elsewhere",
        ]
        assert wire.ask(message(BODY, *headers)).status == 200
