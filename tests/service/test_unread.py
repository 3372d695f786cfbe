"""A request that is not fully read gets one reply with `Connection: close`, and the connection is closed."""

import pytest

from tests.service.conftest import Connect, Service, Wire
from tests.service.wire import BODY, QUESTION, message

LIVE = message(b"", line="GET /health/live HTTP/1.1")
CHUNKED = "Transfer-Encoding: chunked"
WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LARGE = b"%x\r\n%s\r\n0\r\n\r\n" % (30_000, BODY.ljust(30_000))


def sent(body: bytes, line: str = "POST /predict HTTP/1.1", length: str = CHUNKED) -> bytes:
    return message(body, line=line, length=length)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (sent(b"zz\r\n"), 400),
        (sent(b"-1\r\nabc"), 400),
        (sent(b"5\r\nabcdefg\r\n0\r\n\r\n"), 400),
        (sent(WHOLE.removesuffix(b"\r\n") + b"a b: c\r\n\r\n"), 400),
        (sent(LARGE), 413),
        # The application does not read these bodies.
        (sent(b"zz\r\n", "POST /nothing HTTP/1.1"), 404),
        (sent(b"zz\r\n", "PUT /predict HTTP/1.1"), 405),
        (sent(b"zz\r\n", "GET /health/live HTTP/1.1"), 200),
        (sent(WHOLE, "GET /health/live HTTP/1.1"), 200),
        (sent(LARGE, "POST /nothing HTTP/1.1"), 404),
        (sent(BODY.ljust(100_000), "POST /nothing HTTP/1.1", "Content-Length: 100000"), 404),
        (sent(BODY, length="Content-Length: 100000"), 413),
    ],
)
def test_an_unread_body_closes_the_connection(
    service: Service, connect: Connect, request_: bytes, status: int
) -> None:
    wire = connect(service)
    wire.send(request_ + LIVE)  # must not be answered, since its start is unknown
    reply = wire.receive()
    assert (reply.status, reply.headers["Connection"]) == (status, "close")
    wire.finish()
    assert wire.ended()  # without a second reply


@pytest.mark.parametrize("path", ["/predict", "/nothing"])
def test_a_truncated_body_closes_the_connection(service: Service, connect: Connect, path: str) -> None:
    for body in (message(BODY, line=f"POST {path} HTTP/1.1")[:-5], sent(WHOLE, f"POST {path} HTTP/1.1")[:-5]):
        wire = connect(service)
        wire.send(body)
        wire.finish()
        reply = wire.receive()
        assert reply.status in (400, 404)
        assert reply.headers["Connection"] == "close" or path == "/nothing"
        assert wire.ended()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (sent(WHOLE), 200),
        (sent(WHOLE.replace(b"\r\n0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n")), 200),
        (message(b"{"), 400),
        (message(BODY, line="POST /nothing HTTP/1.1"), 404),
        (message(BODY.ljust(20_001)), 413),
        (message(BODY, line="GET /health/live HTTP/1.1"), 200),
        (message(BODY, content_type="text/plain"), 415),
    ],
)
def test_a_body_that_is_read_or_short_keeps_the_connection(
    service: Service, connect: Connect, request_: bytes, status: int
) -> None:
    wire: Wire = connect(service)
    for _ in range(2):
        reply = wire.ask(request_)
        assert (reply.status, reply.headers["Connection"]) == (status, "keep-alive")
    assert wire.ask(QUESTION).status == 200
