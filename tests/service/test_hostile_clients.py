"""Clients that ask too much, stall, do not read or do not close cost the others nothing lasting."""

import json
import os
import selectors
import socket
import time
from contextlib import closing, suppress

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn

from service.app import create_app
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.settings import Settings
from service.shortcut import ShortcutWorker
from tests.service.conftest import MODEL, Connect, Service, Start, Wire
from tests.service.test_predict import ITEM
from tests.service.test_refusals import LONG, refused
from tests.service.wire import BODY, QUESTION, message, short


@pytest.fixture
def full(start: Start, connect: Connect) -> tuple[Service, Wire]:
    """A service whose only place is taken until the test ends, and a connection kept alive before."""
    service = start(QA_MAX_WAITING="0", QA_THREADS="1", QA_MAX_BODY_BYTES="20000000", QA_DRAIN_SECONDS="0")
    wire, busy = connect(service), connect(service)
    assert wire.ask(QUESTION).status == 200
    busy.send(message(json.dumps({"inputs": [LONG] * 20}).encode()))
    service.await_work()
    return service, wire


def test_refusals_keep_the_connection_and_are_counted(full: tuple[Service, Wire]) -> None:
    service, wire = full
    answered = service.figures()["qa_request_seconds_count"]
    for _ in range(3):
        reply = wire.ask(QUESTION)
        refused(reply, 429, "overloaded")
        assert short(reply)
        assert int(reply.headers["Retry-After"]) >= 1
        time.sleep(0.3)  # no thread stays for longer than that, so the loop sees the next
    refused(wire.ask(message(BODY, "X-Request-Timeout: 5", line="POST /?x HTTP/1.1")), 429, "overloaded")
    figures = service.figures()
    assert figures['qa_requests_total{status="429"}'] == 4
    assert figures["qa_request_seconds_count"] == answered  # how fast refusals are says nothing
    assert service.get("/health/ready").status == 200  # busy is not broken


def test_refusals_cost_no_thread(full: tuple[Service, Wire], connect: Connect) -> None:
    service, wire = full
    for stalled in [connect(service) for _ in range(30)]:  # more than there are threads
        stalled.send(QUESTION[:40])
    wire.socket.settimeout(5)  # they give up after ten
    for _ in range(3):
        refused(wire.ask(QUESTION), 429, "overloaded")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (message(b"{}", line="POST /other HTTP/1.1"), 404),
        (message(BODY, "Connection: close"), 429),
        (message(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), length="Transfer-Encoding: chunked"), 429),
    ],
)
def test_everything_else_gets_a_thread(full: tuple[Service, Wire], request_: bytes, status: int) -> None:
    _, wire = full
    reply = wire.ask(request_)
    assert reply.status == status
    assert not short(reply)


def test_refusals_of_requests_in_parts_and_of_two_at_once(full: tuple[Service, Wire]) -> None:
    _, wire = full
    wire.send(QUESTION[:-5])
    time.sleep(0.1)  # as a rule the loop has seen the first part by then, and left it to a thread
    assert wire.ask(QUESTION[-5:]).status == 429
    wire.send(QUESTION + QUESTION)
    assert [wire.receive().status for _ in range(2)] == [429, 429]
    assert short(wire.ask(QUESTION))


def test_who_does_not_read_is_cut_off(start: Start) -> None:
    service = start()
    large = message(json.dumps([ITEM | {"parameters": {"top_k": 100}}] * 128).encode())
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect((service.host, service.port))
        client.sendall(QUESTION)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        with suppress(ConnectionError):
            while True:  # ends when the connection has been closed
                client.sendall(large)
                time.sleep(0.2)  # so that the first few come alone
    assert service.get("/health/live").status == 200


def test_the_loop_closes_on_who_does_not_read() -> None:
    """In this process, since the buffers of a real connection hold thousands of refusals."""
    configuration = Config()
    answerer = QuestionAnswerer(load_artifact(MODEL), threads=1)
    worker = ShortcutWorker(1, os.getpid(), [], None, 30, configuration, Logger(configuration))
    worker.wsgi = create_app(Settings(max_waiting=0), answerer)
    worker.poller = selectors.DefaultSelector()
    ours, client = socket.socketpair()
    conn = TConn(configuration, ours, "", "")
    conn.init()
    conn.set_timeout()
    ours.setblocking(False)
    worker.keepalived_conns.append(conn)
    worker.poller.register(ours, selectors.EVENT_READ)
    with (
        closing(client),
        closing(worker.poller),
        closing(worker.tmp),
        worker.wsgi.extensions["predictor"]._turnstile.admit(),
    ):
        client.sendall(QUESTION)
        worker.on_client_socket_readable(conn, ours)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 429 ")
        worker.murder_keepalived()
        assert list(worker.keepalived_conns) == [conn]
        conn.timeout -= 20  # as if it had been quiet for so long
        behind = TConn(configuration, client.dup(), "", "")
        behind.timeout = conn.timeout + 1
        worker.keepalived_conns.append(behind)
        client.sendall(QUESTION)
        worker.on_client_socket_readable(conn, ours)
        assert list(worker.keepalived_conns) == [behind, conn]
        assert conn.timeout > behind.timeout + 18
        worker.keepalived_conns.remove(behind)
        behind.close()
        client.recv(1 << 16)
        client.setblocking(True)  # a duplicate shares that
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += ours.send(b" " * 1000)
        client.sendall(QUESTION)
        worker.on_client_socket_readable(conn, ours)
        worker.murder_keepalived()  # as the loop does next
        assert not worker.keepalived_conns
        received = 0
        while data := client.recv(1 << 16):
            received += len(data)
        assert received == filled  # and the end


def test_who_stalls_loses_place_and_thread(start: Start, connect: Connect) -> None:
    service = start(QA_MAX_WAITING="0", QA_THREADS="1")
    stalled = [connect(service) for _ in range(30)]  # more than there are threads
    for number, wire in enumerate(stalled):
        wire.send(QUESTION[: 40 if number % 2 else -5])
    while service.ask(ITEM).status != 200:  # refused while a half question has the place
        time.sleep(0.2)


def test_who_does_not_close_holds_nobody_up(start: Start, connect: Connect) -> None:
    service = start()
    slow = [connect(service) for _ in range(60)]
    for wire in slow:
        assert wire.ask(QUESTION).status == 200
    for wire in slow:
        wire.send(message(b"", "Connection: close", line="GET /health/live HTTP/1.1"))
    assert {wire.receive().status for wire in slow[:5]} == {200}
    with closing(service.connect(timeout=10)) as patient:  # gunicorn would wait for seconds for each in turn
        assert service.ask(None, method="GET", path="/health/live", connection=patient).status == 200
    assert {wire.receive().status for wire in slow[5:]} == {200}
    assert all(wire.ended() for wire in slow)
