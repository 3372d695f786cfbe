"""The benchmark's HTTP client against scripted servers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from service.bench.connections import HttpTarget
from service.bench.load import OK, REFUSED, Plan
from service.bench.workload import Item
from service.errors import QAError

ITEMS = [Item(f"question {n}", "context " * (n + 1), 10) for n in range(3)]
TIMING = b'hit, cache;desc="x";dur=1e9x, infer;dur=2.50, edge; dur=3;desc=y, queue;dur=1'
ANSWER = b"HTTP/1.1 200 OK\r\nServer-Timing: %s\r\nContent-Length: 2\r\n\r\n{}" % TIMING
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"

Serve = Callable[[socket.socket, bytes], None]


@contextmanager
def listening(serve: Serve) -> Iterator[tuple[str, list[bytes], list[int]]]:
    """A server that calls `serve` with each request; yields its address, its requests and its connections."""
    seen: list[bytes] = []
    connected: list[int] = []

    def talk(client: socket.socket) -> None:
        with client:
            while data := _request(client):
                seen.append(data)
                serve(client, data)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            connected.append(client.fileno())
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen, connected
        listener.shutdown(socket.SHUT_RDWR)


def _request(client: socket.socket) -> bytes:
    data = b""
    try:
        while b"\r\n\r\n" not in data or len(data) < _length(data):
            if not (piece := client.recv(4096)):
                return b""
            data += piece
    except OSError:
        return b""
    return data


def _length(data: bytes) -> int:
    head, _, _ = data.partition(b"\r\n\r\n")
    return len(head) + 4 + int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def no_progress(_: float) -> None:
    """No progress bar."""


def test_questions_alternate_on_keep_alive_connections() -> None:
    with listening(lambda client, _: client.sendall(ANSWER)) as (address, seen, connected):
        plan = Plan(callers=3, seconds=0.2, warm_up=0.1)
        measured = HttpTarget(address, deadline=0.5).measure(ITEMS, plan, no_progress)
    assert len(connected) == 3
    assert len(seen) == len(measured.samples) > 6
    assert {number for data in seen for number in range(3) if b"question %d" % number in data} == {0, 1, 2}
    head = f"POST /predict HTTP/1.1\r\nHost: {address}\r\nX-Request-Timeout: 0.5\r\n"
    assert seen[0].startswith(head.encode())
    figures = measured.summary()
    assert (figures["failed"], figures["refused"]) == (0, 0)
    assert (figures["infer_p50"], figures["edge_p50"], figures["queue_p50"]) == (2.5, 3.0, 1.0)


def test_fragmented_replies() -> None:
    def serve(client: socket.socket, _: bytes) -> None:
        for cut in (slice(0, 20), slice(20, -1), slice(-1, None)):
            client.sendall(ANSWER[cut])
            time.sleep(0.005)

    with listening(serve) as (address, seen, connected):
        measured = HttpTarget(address).measure(ITEMS, Plan(callers=2, seconds=0.2, warm_up=0), no_progress)
    assert len(connected) == 2
    assert len(seen) == len(measured.samples)
    assert {sample.status for sample in measured.samples} == {OK}


def test_partial_writes() -> None:
    """A body larger than the buffers, to a server that is slow to read."""
    items = [Item("question", "x" * 20_000_000, 10)]

    def serve(client: socket.socket, data: bytes) -> None:
        client.sendall(ANSWER if len(data) > 20_000_000 else REFUSAL)

    with listening(serve) as (address, _, _):
        measured = HttpTarget(address).measure(items, Plan(callers=2, seconds=0.1, warm_up=0), no_progress)
    assert {sample.status for sample in measured.samples} == {OK}


def test_rejections_are_counted_separately() -> None:
    def serve(client: socket.socket, data: bytes) -> None:
        client.sendall(REFUSAL if b"question 1" in data else ANSWER)

    with listening(serve) as (address, _, connected):
        measured = HttpTarget(address).measure(ITEMS, Plan(callers=1, seconds=0.2, warm_up=0), no_progress)
    assert len(connected) == 1
    assert [sample.status for sample in measured.samples[:4]] == [OK, REFUSED, OK, OK]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (ANSWER.replace(b"Content-L", b"Connection: Close\r\nContent-L"), OK),
        (b"HTTP/1.1 200 OK\r\n\r\n", 0),
        (b"nonsense\r\ncontent-length: 0\r\n\r\n", 0),
        (b"", 0),
    ],
)
def test_a_closed_connection_is_reopened(reply: bytes, status: int) -> None:
    def serve(client: socket.socket, _: bytes) -> None:
        client.sendall(reply)
        client.shutdown(socket.SHUT_RDWR)

    with listening(serve) as (address, seen, connected):
        plan = Plan(callers=1, seconds=0.1, warm_up=0, rate=50)
        measured = HttpTarget(address).measure(ITEMS, plan, no_progress)
    assert len(seen) == len(connected) == len(measured.samples) == 5
    assert {sample.status for sample in measured.samples} == {status}


def test_closing_an_idle_connection_is_not_a_failure() -> None:
    def serve(client: socket.socket, _: bytes) -> None:
        client.sendall(ANSWER)
        time.sleep(0.01)
        client.shutdown(socket.SHUT_RDWR)

    with listening(serve) as (address, _, connected):
        plan = Plan(callers=1, seconds=0.2, warm_up=0, rate=20)
        measured = HttpTarget(address).measure(ITEMS, plan, no_progress)
    assert len(connected) == len(measured.samples) == 4
    assert {sample.status for sample in measured.samples} == {OK}


def test_the_open_loop_does_not_wait_for_replies() -> None:
    """Others are sent while one reply is delayed; without a free connection the latency includes the wait."""

    def serve(client: socket.socket, data: bytes) -> None:
        time.sleep(0.3 if b"question 0" in data else 0)
        client.sendall(ANSWER)

    with listening(serve) as (address, _, connected):
        target = HttpTarget(address)
        free = target.measure(ITEMS, Plan(callers=9, seconds=0.2, warm_up=0, rate=50), no_progress)
        assert len(connected) == 9
        stuck = target.measure(ITEMS, Plan(callers=1, seconds=0.2, warm_up=0, rate=20), no_progress)
    late = [sample.due for sample in free.samples if sample.latency >= 0.3]
    assert len(late) == 4
    assert len(free.samples) == 10
    assert [sample.due for sample in stuck.samples] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert stuck.samples[1].latency >= 0.25


def test_progress_is_reported() -> None:
    reported: list[float] = []
    plan = Plan(callers=1, seconds=0.4, warm_up=0.2)
    with listening(lambda client, _: client.sendall(ANSWER)) as (address, _, _):
        HttpTarget(address).measure(ITEMS, plan, reported.append)
    assert reported == sorted(reported)
    assert 0 < reported[0] <= reported[-1] <= plan.total


@pytest.mark.parametrize("url", ["ftp://host", "https://host", "http://"])
def test_invalid_addresses_are_rejected(url: str) -> None:
    with pytest.raises(QAError):
        HttpTarget(url)
