"""What the server refuses before the application sees it: same shape, counted, no text in reply or log."""

import json
import time

import pytest

from tests.service.conftest import Connect, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_refusals import SECRET, refused
from tests.service.wire import BODY, message

CHUNKED = {"length": "Transfer-Encoding: chunked"}
HELLO = bytes.fromhex("16030100") + bytes([200]) + b"\x01\x00" + SECRET.encode() * 14
UNREADABLE = {
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
def talkative(start: Start) -> Service:
    """A service that logs all it ever would."""
    return start("--access-log", QA_LOG_LEVEL="debug")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_errors_have_the_common_shape_and_are_counted(
    talkative: Service, connect: Connect, kind: str
) -> None:
    request, status, code = UNREADABLE[kind]
    name = f'qa_requests_total{{status="{status}"}}'
    before = talkative.figures().get(name, 0)
    wire = connect(talkative)
    wire.send(request)
    refused(wire.receive(), status, code)
    assert wire.ended()
    assert talkative.figures()[name] == before + 1
    assert SECRET not in talkative.log.read_text()
    assert "Traceback" not in talkative.log.read_text()


def test_a_body_shorter_than_its_content_length_is_rejected(talkative: Service, connect: Connect) -> None:
    """Even where what came is a question by itself."""
    wire = connect(talkative)
    wire.send(message(BODY, length=f"Content-Length: {len(BODY) + 10}"))
    wire.finish()
    refused(wire.receive(), 400, "bad_request")
    assert wire.ended()


def test_a_body_longer_than_its_content_length_is_a_second_request(
    talkative: Service, connect: Connect
) -> None:
    wire = connect(talkative)
    wire.send(message(BODY) + SECRET.encode() + b"\r\n\r\n")
    assert wire.receive().status == 200
    refused(wire.receive(), 400, "bad_request")
    assert wire.ended()


def test_an_aborted_request_leaves_no_text_in_the_log(talkative: Service, connect: Connect) -> None:
    for part in (f"GET /{SECRET}".encode(), message(json.dumps(ITEM | {"x": SECRET}).encode())[:-3]):
        wire = connect(talkative)
        wire.send(part)
        wire.close()
    time.sleep(0.2)
    assert talkative.ask(ITEM).status == 200
    assert SECRET not in talkative.log.read_text()


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
def test_the_access_log_names_only_what_is_served(
    talkative: Service, connect: Connect, request_: bytes
) -> None:
    lines = len(talkative.log.read_text().splitlines())
    connect(talkative).ask(request_)
    time.sleep(0.05)
    log = talkative.log.read_text()
    assert SECRET.lower() not in log.lower()
    assert sum('HTTP/1.1"' in line for line in log.splitlines()[lines:]) == 1


def test_a_stalled_request_gets_408(talkative: Service, connect: Connect) -> None:
    wires = [connect(talkative) for _ in range(3)]
    for wire, sent in zip(wires, (message(BODY)[:40], message(BODY)[:-5], HELLO[:1]), strict=True):
        wire.send(sent)
    for wire in wires:
        refused(wire.receive(), 408, "too_slow")
        assert wire.ended()
