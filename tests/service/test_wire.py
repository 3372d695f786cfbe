"""HTTP at the byte level: valid requests in every form are answered, invalid ones are rejected."""

import json
import signal
import threading
import time

import pytest

from tests.service.conftest import Connect, Reply, Service, Start, Wire
from tests.service.test_predict import ITEM, OTHER
from tests.service.wire import BODY, QUESTION, message

CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture
def wire(service: Service, connect: Connect) -> Wire:
    """A connection that is kept alive."""
    wire = connect(service)
    assert wire.ask(QUESTION).headers["Connection"] == "keep-alive"
    return wire


@pytest.mark.parametrize("target", ["/", "/predict"])
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (BODY, "", 200),
        (json.dumps({"question": "谁?", "context": "Zoë \U0001f600."}, ensure_ascii=False).encode(), "", 200),
        (json.dumps([ITEM, {"question": ""}, OTHER]).encode(), "", 200),
        (json.dumps(ITEM | {"parameters": {"top_k": 3}}).encode(), "", 200),
        (BODY, "X-Request-Timeout: 20", 200),
        (BODY, "X-Request-Timeout: soon", 422),
        (BODY, "X-Request-Timeout:", 422),
        (BODY, "X-Request-Timeout: 1e-9", 504),
        (b"", "", 400),
        (b"\xff", "", 400),
        (b"{}", "", 422),
    ],
)
def test_requests_keep_the_connection(
    wire: Wire, target: str, content_type: str, body: bytes, more: str, status: int
) -> None:
    reply = wire.ask(message(body, more, line=f"POST {target} HTTP/1.1", content_type=content_type))
    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Connection"] == "keep-alive"
    assert ("Server-Timing" in reply.headers) == (status == 200)
    assert wire.ask(QUESTION).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        message(BODY, "Connection: Keep-Alive"),
        message(BODY, "Accept: */*", "User-Agent: x/1 (a; b)", "X-Forwarded-Proto: https", "Cookie: a=b"),
        message(BODY, "X-Name: caf\xe9 \t", "X-Empty:"),
        QUESTION.replace(b"Content-", b"cONTENT-").replace(b"Host: ", b"host:\t "),
    ],
)
def test_requests_of_common_clients_are_answered(wire: Wire, request_: bytes) -> None:
    assert [wire.ask(request_).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (message(line="POST /predict?a=b HTTP/1.1"), 200),
        (message(line="POST /%70redict HTTP/1.1"), 200),
        (message(line="POST http://x/predict HTTP/1.1"), 200),
        (message(line="POST /predict HTTP/1.0"), 200),
        (b"\r\n" + QUESTION, 200),
        (message(BODY, "Connection: close"), 200),
        (message(BODY, "Connection: keep-alive, close"), 200),
        (message(BODY, "X_Request_Timeout: soon"), 200),  # gunicorn drops such names
        (message(BODY, "X-Twice: a", "X-Twice: b"), 200),
        (message(BODY, "X-Forwarded-Proto: https", "X-Forwarded-Protocol: https"), 200),
        (message(BODY, "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off", "Forwarded: proto=ftp"), 200),
        (message(BODY, "SCRIPT_NAME: /nowhere", "PATH_INFO: /nowhere"), 200),
        (message(BODY, content_type="application/json; charset=ascii"), 200),
        (message(CHUNKED, length="Transfer-Encoding: chunked"), 200),
        (message(b"", line="GET /health/live HTTP/1.1"), 200),
        (message(BODY, content_type="text/plain"), 415),
        (message(line="PUT /predict HTTP/1.1"), 405),
        (message(line="POST /predictions HTTP/1.1"), 404),
        (message(BODY, f"Content-Length: {len(BODY)}"), 400),
        (message(BODY, "Content-Length: 5"), 400),
        (message(BODY, length=f"Content-Length: {len(BODY)}, {len(BODY)}"), 400),
        (message(BODY, length=f"Content-Length: +{len(BODY)}"), 400),
        (message(BODY, length=f"Content-Length : {len(BODY)}"), 400),
        (message(CHUNKED, "Transfer-Encoding: chunked"), 400),
        (message(CHUNKED, length="Transfer-Encoding: chunked, identity"), 400),
        (message(CHUNKED, length="Transfer-Encoding: CHUNKED "), 200),
        (message(CHUNKED, length="Transfer-Encoding: gzip, chunked"), 501),
        (message(CHUNKED, length="Transfer-Encoding: xchunked"), 501),
        (message(CHUNKED, length="Transfer-Encoding: chunked\x0b"), 400),
        (message(BODY, "Transfer-Encoding: chunked"), 400),
        (message(BODY, length="Transfer-Encoding: identity"), 400),
        (message(BODY, length="Content-Length: -1"), 400),
        (message(BODY, length="Content-Length: 0x20"), 400),
        (message(BODY, length="Content-Length: 99999999999999999999999"), 413),
        (message(BODY, "Host: y"), 400),
        (message(BODY, "X-Folded: a\r\n b"), 400),
        (message(BODY, "X-Bare: a\nX-Line: feed"), 400),
        (message(BODY, "X-Nul: \0"), 400),
        (message(BODY, "Na me: x"), 400),
        (message(BODY, ": x"), 400),
        (message(BODY, *(f"X-{number}: x" for number in range(98))), 431),
        (message(BODY, "X-Huge: " + 9000 * "x"), 431),
        (message(line="post /predict HTTP/1.1"), 400),
        (message(line="POST  /predict HTTP/1.1"), 400),
        (message(line="POST /predict HTTP/1.1 "), 400),
        (message(line="POST /predict\tHTTP/1.1"), 400),
        (message(BODY, "Expect: tea"), 417),
    ],
)
def test_unusual_requests_are_answered_or_rejected(wire: Wire, request_: bytes, status: int) -> None:
    reply = wire.ask(request_)
    assert reply.status == status
    if reply.headers["Connection"] == "keep-alive":  # then the next request must be parsed correctly
        assert wire.ask(QUESTION).status == 200
    else:
        assert wire.ended()


def test_requests_of_all_kinds_share_a_connection(wire: Wire) -> None:
    for _ in range(3):
        assert wire.ask(QUESTION).status == 200
        assert wire.ask(message(b"", line="GET /health/live HTTP/1.1")).body == {"status": "live"}
        assert wire.ask(message(CHUNKED, length="Transfer-Encoding: chunked")).status == 200
    wire.send(message(BODY, "Expect: 100-continue").removesuffix(BODY))
    assert wire.receive().status == 100
    assert wire.ask(BODY).status == 200
    assert wire.ask(QUESTION).status == 200


def test_pipelined_requests_are_answered_in_order(wire: Wire, service: Service) -> None:
    items = [ITEM, OTHER, {"question": "Who?", "context": "Ann"}] * 4
    requests = [message(json.dumps(item).encode()) for item in items]
    wire.send(b"".join(requests[:7]) + message(b"", line="GET /health/live HTTP/1.1"))
    wire.send(b"".join(requests[7:]))
    replies = [wire.receive() for _ in range(13)]
    assert replies.pop(7).body == {"status": "live"}
    assert [reply.body for reply in replies] == [service.ask(item).body for item in items]
    assert wire.ask(QUESTION).status == 200


def test_bytes_buffered_by_the_parser_are_used_first(service: Service, connect: Connect) -> None:
    """A body that looks like a request, half in gunicorn's buffer, is not parsed as one."""
    wire = connect(service)
    rest = message(QUESTION, line="POST /nothing HTTP/1.1")
    first = message(b"", line="GET /health/live HTTP/1.1")
    padding = 8192 - len(first) - (len(rest) - len(QUESTION)) - len("X: \r\n")  # gunicorn's read size
    wire.send(message(b"", f"X: {padding * 'x'}", line="GET /health/live HTTP/1.1") + rest)
    assert [wire.receive().status for _ in range(2)] == [200, 404]
    assert wire.ask(message(b"", line="GET /info HTTP/1.1")).status == 200  # without another reply before it


@pytest.mark.parametrize("cut", [1, 30, len(QUESTION) - len(BODY), len(QUESTION) - 1])
def test_fragmented_requests(wire: Wire, cut: int) -> None:
    whole = wire.ask(QUESTION)
    wire.send(QUESTION[:cut])
    time.sleep(0.05)  # usually enough for the service to read the first part
    reply = wire.ask(QUESTION[cut:])
    assert reply.data == whole.data
    assert wire.ask(QUESTION).status == 200


def test_the_body_size_is_limited(wire: Wire, service: Service) -> None:
    limit = service.get("/info").body["limits"]["max_body_bytes"]
    largest = wire.ask(message(BODY.ljust(limit)))
    assert largest.status == 200
    too_large = wire.ask(message(BODY.ljust(limit + 1)))
    assert (too_large.status, too_large.body["error"]["code"]) == (413, "too_large")


def test_a_body_larger_than_one_read_is_answered(start: Start, connect: Connect) -> None:
    wire = connect(start())
    for size in ((1 << 16) - 100, 1 << 16, 1 << 18):
        assert wire.ask(message(BODY.ljust(size))).status == 200


def test_every_request_has_a_line_in_the_access_log(start: Start, connect: Connect) -> None:
    service = start("--access-log")
    wire = connect(service)
    assert [wire.ask(QUESTION).status for _ in range(3)] == [200] * 3
    service.stop()
    assert service.log.read_text().count('"POST /predict HTTP/1.1" 200 ') == 3


def test_it_stops_with_busy_connections(start: Start, connect: Connect) -> None:
    service = start()
    wires = [connect(service) for _ in range(4)]
    replies: list[list[Reply]] = [[] for _ in wires]

    def ask_on(wire: Wire, replies: list[Reply]) -> None:
        while not replies or replies[-1].headers["Connection"] != "close":
            replies.append(wire.ask(QUESTION))

    idle = connect(service)
    assert idle.ask(QUESTION).status == 200
    threads = [threading.Thread(target=ask_on, args=pair) for pair in zip(wires, replies, strict=True)]
    for thread in threads:
        thread.start()
    while min(map(len, replies)) < 10:
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert {reply.status for several in replies for reply in several} == {200}
    assert all(several[-1].headers["Connection"] == "close" for several in replies)
    assert all(wire.ended() for wire in wires)
    ready = idle.ask(message(b"", line="GET /health/ready HTTP/1.1"))
    assert (ready.status, ready.headers["Connection"]) == (503, "close")
    assert service.process.wait(60) == 0
