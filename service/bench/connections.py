"""Owns the HTTP load generator, many connections on one thread; knows no scenario."""

import json
import re
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from service.bench.load import Measurement, Plan, Progress
from service.bench.workload import Item
from service.errors import QAError

# Time-outs in seconds: for the replies in flight at the end, and for connecting.
_PATIENCE = 60.0
_CONNECT_SECONDS = 5.0
_TICK = 0.25  # seconds between progress reports
_HEADERS = re.compile(rb"\r\n(content-length|connection|server-timing):[ \t]*([^\r]*)", re.IGNORECASE)

# An entry of Server-Timing; proxies may have added others.
_STAGE = re.compile(rb"([A-Za-z0-9_-]+)[^,]*?;[ \t]*dur=([0-9]+(?:\.[0-9]+)?)")

# Result of one question: HTTP status (0: no reply) and the value of Server-Timing.
_Reply = tuple[int, bytes]
_FAILED: _Reply = (0, b"")


class _Connection:
    """A keep-alive connection and the request in flight on it, which was due at `due`."""

    def __init__(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self._address = address
        self._selector = selector
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._received = b""
        self.due = 0.0
        self.busy = False

    def ask(self, request: bytes, due: float) -> _Reply | None:
        """Start sending without blocking; returns a reply only on failure."""
        self.due, self.busy = due, True
        self._unsent, self._received = request, b""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=_CONNECT_SECONDS)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setblocking(False)
                self._selector.register(self._socket, selectors.EVENT_READ, self)
            self._send(self._socket)
        except OSError:
            return self.fail()
        if self._unsent:
            self._selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        return None

    def proceed(self) -> _Reply | None:
        """Send and receive without blocking; returns the reply once it is complete."""
        connected = self._socket
        if connected is None:  # closed after the selector reported it
            return None
        try:
            if self._unsent:
                self._send(connected)
                if not self._unsent:
                    self._selector.modify(connected, selectors.EVENT_READ, self)
            data = connected.recv(65536)
            if not data or not self.busy:  # closed by the server, or unsolicited data
                raise ConnectionError
            self._received += data
            return self._reply()
        except BlockingIOError:
            return None
        except (OSError, ValueError, KeyError):
            if self.busy:
                return self.fail()
            self.close()
            return None

    def _send(self, to: socket.socket) -> None:
        with suppress(BlockingIOError):
            self._unsent = self._unsent[to.send(self._unsent) :]

    def _reply(self) -> _Reply | None:
        """Parse the received data; None if the reply is incomplete."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        headers = {name.lower(): value for name, value in _HEADERS.findall(self._received, 0, end)}
        if len(self._received) < end + 4 + int(headers[b"content-length"]):
            return None
        status = int(self._received[9:12])
        self.busy = False
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return status, headers.get(b"server-timing", b"")

    def fail(self) -> _Reply:
        """Abort the request in flight."""
        self.busy = False
        self.close()
        return _FAILED

    def close(self) -> None:
        """Close it; the next request opens a new connection."""
        if self._socket is not None:
            with suppress(KeyError):
                self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


class HttpTarget:
    """A server, with one keep-alive connection per caller.

    A single thread multiplexes them, without a client library, since CPU time of the client is lost to a
    server on the same cores: 5.7% of a core at 550 requests/s, against 8.5% with a thread per connection.
    """

    def __init__(self, url: str, deadline: float | None = None) -> None:
        """`deadline`: seconds, sent with every request."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise QAError(f"{url} is not the address of a server, like http://127.0.0.1:8000.")
        self._address = (parts.hostname, parts.port or 80)
        self._host = parts.netloc.rpartition("@")[2]
        self._deadline = "" if deadline is None else f"X-Request-Timeout: {deadline}\r\n"

    def measure(self, items: Sequence[Item], plan: Plan, progress: Progress) -> Measurement:
        """Ask `items` cyclically; `progress` receives the elapsed seconds."""
        requests = [self._request(item) for item in items]
        replies: list[tuple[float, float, int, bytes]] = []  # due, finished, and the reply
        with selectors.DefaultSelector() as selector:
            connections = [_Connection(self._address, selector) for _ in range(plan.callers)]
            idle = deque(connections)
            begin = time.perf_counter()
            asked, told = 0, 0.0

            def over(connection: _Connection, reply: _Reply) -> None:
                idle.append(connection)
                replies.append((connection.due, time.perf_counter() - begin, *reply))

            while True:
                now = time.perf_counter() - begin
                due = plan.due(asked, now)
                if due >= plan.total and len(idle) == len(connections):
                    break
                if idle and due <= now and due < plan.total:
                    connection = idle.popleft()
                    if (reply := connection.ask(requests[asked % len(requests)], due)) is not None:
                        over(connection, reply)
                    asked += 1
                    continue
                wait = min(due - now, _TICK) if idle and due < plan.total else _TICK
                for connection in _ready(selector, wait):
                    if (reply := connection.proceed()) is not None:
                        over(connection, reply)
                if now - told >= _TICK:
                    told = now
                    progress(min(now, plan.total))
                if now > plan.total + _PATIENCE:
                    for connection in connections:
                        if connection.busy:
                            over(connection, connection.fail())
            for connection in connections:
                connection.close()
        samples = [
            plan.sample(due, finished, status, _stages(timing)) for due, finished, status, timing in replies
        ]
        return Measurement(plan, samples)

    def _request(self, item: Item) -> bytes:
        """The bytes of a request, encoded before the measurement to save CPU time during it."""
        body = json.dumps({"question": item.question, "context": item.context}).encode()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {self._host}\r\n{self._deadline}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _ready(selector: selectors.DefaultSelector, seconds: float) -> list[_Connection]:
    """Connections that are ready for I/O; waits at most `seconds` for the first one."""
    # Selectors round time-outs up to whole milliseconds, which would delay requests due earlier.
    if seconds < _TICK and not select.select([selector.fileno()], [], [], seconds)[0]:
        return []
    return [key.data for key, _ in selector.select(seconds)]


def _stages(header: bytes) -> dict[str, float]:
    """Seconds by stage from a Server-Timing header; entries without a duration are ignored."""
    return {name.decode("ascii"): float(ms) / 1000 for name, ms in _STAGE.findall(header)}
