"""In an overload the event loop itself refuses, over connections that stay usable, and only questions."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPMessage, parse_headers
from io import BytesIO

import pytest

from tests.service.conftest import Reply, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_refusals import LONG, refused

BODY = json.dumps(ITEM).encode()
HEAD = (
    f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
)
QUESTION = HEAD.encode() + b"\r\n" + BODY


@pytest.fixture
def line(start: Start) -> Iterator[tuple[Service, socket.socket]]:
    """A service whose only place is taken until the test ends, and a connection kept alive before."""
    service = start(QA_MAX_WAITING="0", QA_THREADS="1", QA_MAX_BODY_BYTES="100000000", QA_DRAIN_SECONDS="0")
    with socket.create_connection((service.host, service.port), timeout=30) as connection:
        assert exchange(connection, QUESTION).status == 200
        gone = socket.create_connection((service.host, service.port))
        body = json.dumps({"inputs": [LONG] * 100}).encode()
        gone.sendall(HEAD.replace(f": {len(BODY)}", f": {len(body)}").encode() + b"\r\n" + body)
        service.await_work()
        yield service, connection
        gone.close()


def exchange(connection: socket.socket, request: bytes) -> Reply:
    connection.sendall(request)
    return receive(connection)


def receive(connection: socket.socket) -> Reply:
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    headers: HTTPMessage = parse_headers(BytesIO(rest + b"\r\n\r\n"))
    while len(body) < int(headers["Content-Length"]):
        body += some(connection)
    return Reply(int(first.split()[1]), headers, body)


def some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the connection was closed"
    return data


def by_the_loop(reply: Reply) -> bool:
    """gunicorn signs what its threads answer."""
    return "Server" not in reply.headers


def test_refusals_keep_the_connection(line: tuple[Service, socket.socket]) -> None:
    service, connection = line
    for _ in range(3):
        reply = exchange(connection, QUESTION)
        refused(reply, 429, "overloaded")
        assert by_the_loop(reply)
        assert int(reply.headers["Retry-After"]) >= 1
        assert reply.headers["Date"].endswith("GMT")
    assert service.get("/health/ready").status == 200  # busy is not broken
    figures = service.get("/metrics").data.decode()
    assert 'qa_requests_total{status="429"} 3.0' in figures


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 404),
        (HEAD.encode() + b"Connection: close\r\n\r\n" + BODY, 429),
        (
            HEAD.replace(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked").encode()
            + b"\r\n"
            + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
            429,
        ),
    ],
)
def test_everything_else_gets_a_thread(
    line: tuple[Service, socket.socket], request_: bytes, status: int
) -> None:
    _, connection = line
    reply = exchange(connection, request_)
    assert reply.status == status
    assert not by_the_loop(reply)


def test_a_request_in_parts_and_two_at_once(line: tuple[Service, socket.socket]) -> None:
    _, connection = line
    connection.sendall(QUESTION[:-5])
    time.sleep(0.1)  # as a rule the loop has seen the first part by then, and left it to a thread
    assert exchange(connection, QUESTION[-5:]).status == 429
    connection.sendall(QUESTION + QUESTION)
    data = b""
    while data.count(b'"overloaded"') < 2:
        data += some(connection)
    assert by_the_loop(exchange(connection, QUESTION))


def test_with_an_access_log_every_request_has_its_line(start: Start) -> None:
    service = start("--access-log", QA_MAX_WAITING="0", QA_THREADS="1", QA_DRAIN_SECONDS="0")
    with socket.create_connection((service.host, service.port), timeout=30) as connection:
        assert exchange(connection, QUESTION).status == 200
        long = threading.Thread(target=lambda: service.ask(LONG))
        long.start()
        service.await_work()
        refused(exchange(connection, QUESTION), 429, "overloaded")
        long.join(60)
    assert '" 429 ' in service.log.read_text()
