"""Requests that the HTTP parser rejects: common error shape, counted, no text in the reply or the log."""

import json
import time

import pytest

from tests.service.conftest import Connect, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_refusals import SECRET, assert_error
from tests.service.wire import BODY, message

CHUNKED = {"length": "Transfer-Encoding: chunked"}
HELLO = bytes.fromhex("16030100") + bytes([200]) + b"\x01\x00" + SECRET.encode() * 14
MALFORMED = {
    "no request line": (SECRET.encode() + b"\r\n\r\n", 400, "bad_request"),
    "bare line feed": (b"GET /" + SECRET.encode() + b" HTTP/1.1\n\n", 400, "bad_request"),
    "another version": (b"GET /" + SECRET.encode() + b" HTTP/7.3\r\n\r\n", 400, "bad_request"),
    "method": (b"get" + SECRET.encode() + b" / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "header name": (message(BODY, f"{SECRET} : x"), 400, "bad_request"),
    "header value": (message(BODY, f"X: {SECRET}\0"), 400, "bad_request"),
    "folded header": (message(BODY, f"X: a\r\n {SECRET}"), 400, "bad_request"),
    "long header": (message(BODY, f"X: {SECRET * 800}"), 431, "headers_too_large"),
    "many headers": (message(BODY, *[f"X-{n}: {SECRET}" for n in range(120)]), 431, "headers_too_large"),
    "long line": (message(line=f"GET /{SECRET * 800} HTTP/1.1"), 414, "uri_too_long"),
    "expectation": (message(BODY, f"Expect: {SECRET}"), 417, "expectation_failed"),
    "transfer coding": (
        message(BODY, length=f"Transfer-Encoding: {SECRET}"),
        501,
        "unsupported_transfer_coding",
    ),
    "TLS": (HELLO, 400, "bad_request"),
    "chunk size": (message(f"{SECRET}\r\n".encode(), **CHUNKED), 400, "bad_request"),
    "chunk end": (message(f"5\r\n{SECRET}\r\n".encode(), **CHUNKED), 400, "bad_request"),
    "trailer": (message(f"0\r\n{SECRET} x\r\n\r\n".encode(), **CHUNKED), 400, "bad_request"),
}


@pytest.fixture(scope="module")
def verbose(start: Start) -> Service:
    """A service with the access log and level debug."""
    return start("--access-log", QA_LOG_LEVEL="debug")


@pytest.mark.parametrize("kind", MALFORMED)
def test_errors_have_the_common_shape_and_are_counted(verbose: Service, connect: Connect, kind: str) -> None:
    request, status, code = MALFORMED[kind]
    name = f'qa_requests_total{{status="{status}"}}'
    before = verbose.metrics().get(name, 0)
    wire = connect(verbose)
    wire.send(request)
    assert_error(wire.receive(), status, code)
    assert wire.ended()
    assert verbose.metrics()[name] == before + 1
    assert SECRET not in verbose.log.read_text()
    assert "Traceback" not in verbose.log.read_text()


def test_a_body_shorter_than_its_content_length_is_rejected(verbose: Service, connect: Connect) -> None:
    """Even if the received part is valid JSON."""
    wire = connect(verbose)
    wire.send(message(BODY, length=f"Content-Length: {len(BODY) + 10}"))
    wire.finish()
    assert_error(wire.receive(), 400, "bad_request")
    assert wire.ended()


def test_a_body_longer_than_its_content_length_is_a_second_request(
    verbose: Service, connect: Connect
) -> None:
    wire = connect(verbose)
    wire.send(message(BODY) + SECRET.encode() + b"\r\n\r\n")
    assert wire.receive().status == 200
    assert_error(wire.receive(), 400, "bad_request")
    assert wire.ended()


def test_an_aborted_request_leaves_no_text_in_the_log(verbose: Service, connect: Connect) -> None:
    for part in (f"GET /{SECRET}".encode(), message(json.dumps(ITEM | {"x": SECRET}).encode())[:-3]):
        wire = connect(verbose)
        wire.send(part)
        wire.close()
    time.sleep(0.2)
    assert verbose.ask(ITEM).status == 200
    assert SECRET not in verbose.log.read_text()


@pytest.mark.parametrize(
    "request_",
    [
        message(line=f"GET /{SECRET} HTTP/1.1"),
        message(line=f"GET /predict?q={SECRET} HTTP/1.1"),
        message(line=f"{SECRET.upper()} /predict HTTP/1.1"),
        message(line="POST /%0a%0d[ERROR]" + SECRET + " HTTP/1.1"),
        message(BODY, f"Referer: {SECRET}", f"User-Agent: {SECRET}", f"Cookie: {SECRET}"),
        message(BODY, "Authorization: Basic WmFuemliYXItNDcxMTp4"),  # the secret and a password
    ],
)
def test_the_access_log_has_no_text_of_the_request(
    verbose: Service, connect: Connect, request_: bytes
) -> None:
    identity = connect(verbose).ask(request_).headers["X-Request-ID"]
    deadline = time.monotonic() + 10
    while identity not in (log := verbose.log.read_text()):  # written after the reply has been sent
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    assert SECRET.lower() not in log.lower()
    assert sum('HTTP/1.1"' in line for line in log.splitlines() if identity in line) == 1


def test_a_stalled_request_gets_408(verbose: Service, connect: Connect) -> None:
    wires = [connect(verbose) for _ in range(3)]
    for wire, sent in zip(wires, (message(BODY)[:40], message(BODY)[:-5], HELLO[:1]), strict=True):
        wire.send(sent)
    for wire in wires:
        assert_error(wire.receive(), 408, "too_slow")
        assert wire.ended()
