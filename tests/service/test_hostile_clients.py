"""Clients that overload the service, stall, do not read or do not close connections do not block others."""

import json
import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from tests.service.conftest import Connect, Service, Start, Wire
from tests.service.test_predict import ITEM
from tests.service.test_refusals import LONG, assert_error
from tests.service.wire import BODY, QUESTION, message


@pytest.fixture
def full(start: Start, connect: Connect) -> tuple[Service, Wire]:
    """A service whose only slot is occupied until the test ends, and an open keep-alive connection."""
    service = start(QA_MAX_WAITING="0", QA_THREADS="1", QA_MAX_BODY_BYTES="20000000", QA_DRAIN_SECONDS="0")
    wire, busy = connect(service), connect(service)
    assert wire.ask(QUESTION).status == 200
    busy.send(message(json.dumps({"inputs": [LONG] * 20}).encode()))
    service.await_work()
    return service, wire


def test_rejections_keep_the_connection_and_are_counted(full: tuple[Service, Wire]) -> None:
    service, wire = full
    answered = service.metrics()["qa_request_seconds_count"]
    for _ in range(3):
        reply = wire.ask(QUESTION)
        assert_error(reply, 429, "overloaded")
        assert reply.headers["Connection"] == "keep-alive"
        assert int(reply.headers["Retry-After"]) >= 1
    assert_error(wire.ask(message(BODY, "X-Request-Timeout: 5", line="POST /?x HTTP/1.1")), 429, "overloaded")
    metrics = service.metrics()
    assert metrics['qa_requests_total{status="429"}'] == 4
    assert metrics["qa_request_seconds_count"] == answered  # rejections are not in the histogram


def test_operator_routes_work_under_overload(full: tuple[Service, Wire]) -> None:
    """An overloaded service stays live and ready."""
    service, _ = full
    for path in ("/health/live", "/health/ready", "/metrics", "/info"):
        assert service.get(path).status == 200


def test_a_rejection_does_not_wait_for_the_body(full: tuple[Service, Wire]) -> None:
    """It is sent before the body arrives; the unread body is not parsed as the next request."""
    _, wire = full
    body = QUESTION * 20  # looks like requests
    wire.send(message(body, line="POST / HTTP/1.1").removesuffix(body))
    assert_error(wire.receive(), 429, "overloaded")
    wire.send(body)
    assert wire.ask(message(b"", line="GET /health/live HTTP/1.1")).body == {"status": "live"}


def test_a_long_unread_body_closes_the_connection(full: tuple[Service, Wire]) -> None:
    _, wire = full
    reply = wire.ask(message(BODY.ljust(100_000)))
    assert_error(reply, 429, "overloaded")
    assert reply.headers["Connection"] == "close"
    assert wire.ended()


@pytest.mark.parametrize(
    "request_",
    [
        message(BODY, "Connection: close"),
        message(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), length="Transfer-Encoding: chunked"),
        message(b"", line="POST /predict HTTP/1.0"),
    ],
)
def test_requests_of_every_form_are_rejected(full: tuple[Service, Wire], request_: bytes) -> None:
    _, wire = full
    assert_error(wire.ask(request_), 429, "overloaded")


def test_rejections_of_fragmented_and_pipelined_requests(full: tuple[Service, Wire]) -> None:
    _, wire = full
    wire.send(QUESTION[:40])
    time.sleep(0.1)  # usually enough for the service to read the first part
    assert wire.ask(QUESTION[40:]).status == 429
    wire.send(QUESTION + QUESTION)
    assert [wire.receive().status for _ in range(2)] == [429, 429]
    assert wire.ask(QUESTION).status == 429


def test_a_client_that_does_not_read_is_disconnected(start: Start) -> None:
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
                time.sleep(0.2)  # so that the first few arrive separately
    assert service.get("/health/live").status == 200


def test_a_stalled_client_loses_its_slot_and_thread(start: Start, connect: Connect) -> None:
    service = start(QA_MAX_WAITING="0", QA_THREADS="1")
    workers = service.workers()
    stalled = [connect(service) for _ in range(30)]  # more than there are threads
    for number, wire in enumerate(stalled):
        wire.send(QUESTION[: 40 if number % 2 else -5])
    assert service.ask(ITEM).status == 200  # once the first ones have been disconnected
    assert service.workers() == workers  # the event loop was never blocked as long as the worker timeout


def test_an_incomplete_request_takes_no_slot(start: Start, connect: Connect) -> None:
    service = start(QA_MAX_WAITING="0", QA_THREADS="1")
    for wire in (connect(service) for _ in range(5)):
        wire.send(QUESTION[:-5])
    assert [service.ask(ITEM).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", message(BODY, "X-Huge: " + 9000 * "x")])
def test_a_rejected_client_that_keeps_the_connection_open_blocks_nobody(
    start: Start, connect: Connect, request_: bytes
) -> None:
    service = start()
    for wire in (connect(service) for _ in range(40)):
        wire.send(request_)
        assert wire.receive().status in (400, 431)
    with closing(service.connect(timeout=10)) as patient:
        assert service.ask(ITEM, connection=patient).status == 200


def test_a_client_that_keeps_the_connection_open_blocks_nobody(start: Start, connect: Connect) -> None:
    service = start()
    slow = [connect(service) for _ in range(60)]
    for wire in slow:
        assert wire.ask(QUESTION).status == 200
    for wire in slow:
        wire.send(message(b"", "Connection: close", line="GET /health/live HTTP/1.1"))
    assert {wire.receive().status for wire in slow[:5]} == {200}
    with closing(service.connect(timeout=10)) as patient:  # gunicorn would wait seconds for each in turn
        assert service.ask(None, method="GET", path="/health/live", connection=patient).status == 200
    assert {wire.receive().status for wire in slow[5:]} == {200}
    assert all(wire.ended() for wire in slow)


def max_latency(service: Service, count: int) -> float:
    """The maximum latency of `count` requests on separate connections, in seconds."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        assert service.ask(ITEM).status == 200
        took.append(time.monotonic() - began)
    return max(took)


def test_idle_and_slow_clients_do_not_delay_others(start: Start, connect: Connect) -> None:
    """200 idle connections, and 50 that send a byte per second of the head or the body."""
    service = start()
    before = max_latency(service, 20)
    for _ in range(200):
        connect(service)
    slow = [connect(service) for _ in range(50)]
    head = QUESTION.removesuffix(BODY)
    for number, wire in enumerate(slow):
        wire.send(head[:-4] if number % 2 else head)
    meanwhile = []
    for position in range(3):
        for wire in slow:
            wire.send(b" " if wire is slow[0] else head[-4:][position : position + 1] or b" ")
        meanwhile.append(max_latency(service, 20))
        time.sleep(1)
    print(f"\nslowest of 20 questions: {before:.3f} s before, {max(meanwhile):.3f} s meanwhile")
    # Without spare threads it is the time until the slow ones are disconnected.
    assert max(meanwhile) < before + 2
    assert service.get("/health/ready").status == 200


@pytest.mark.parametrize(
    "text", ["\u3042\u4e9c" * 60_000, "\U0001f468\u200d\U0001f469 " * 40_000, "x" * 1_000_000]
)
def test_huge_and_non_latin_texts_do_not_delay_others(start: Start, text: str) -> None:
    service = start(QA_THREADS="2")
    before = max_latency(service, 20)
    replies: list[int] = []
    body = json.dumps({"question": "Where?", "context": text}, ensure_ascii=False).encode()
    asking = threading.Thread(target=lambda: replies.append(service.ask(body).status))
    asking.start()
    meanwhile: list[float] = []
    while asking.is_alive() and len(meanwhile) < 20:
        meanwhile.append(max_latency(service, 5))
    asking.join(120)
    print(f"\nslowest: {before:.3f} s before, {max(meanwhile):.3f} s meanwhile")
    assert replies[0] in (200, 422, 504)
    assert max(meanwhile) < before + 5  # it takes longer to answer the huge one
