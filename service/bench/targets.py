"""Owns what a benchmark can ask: the bare session, the engine, a server over HTTP; measures nothing."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import urlsplit

from service.batching import Turnstile
from service.bench.workload import Item
from service.engine.answering import QuestionAnswerer
from service.engine.parameters import Parameters
from service.errors import QAError

_STARTUP_SECONDS = 60
OK, REFUSED = 200, 429
_FOREVER = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question: an HTTP status and, from a server, seconds per stage."""

    status: int
    stages: dict[str, float]


Ask = Callable[[Item], Reply]


class Target(Protocol):
    """Something that answers; every caller asks through a connection of its own."""

    def connect(self) -> Ask: ...


class SessionTarget:
    """`session.run` alone, on windows prepared beforehand: the ceiling of everything above it."""

    def __init__(self, answerer: QuestionAnswerer, turnstile: Turnstile, items: list[Item]) -> None:
        self._turnstile = turnstile
        self._prepared = {item: answerer.prepare(item.question, item.context, Parameters()) for item in items}

    def connect(self) -> Ask:
        def ask(item: Item) -> Reply:
            self._turnstile.infer([self._prepared[item]], time.monotonic() + _FOREVER)
            return Reply(OK, {})

        return ask


class EngineTarget:
    """The library in this process, taking turns as in the service."""

    def __init__(self, answerer: QuestionAnswerer, turnstile: Turnstile) -> None:
        self._answerer = answerer
        self._turnstile = turnstile

    def connect(self) -> Ask:
        def ask(item: Item) -> Reply:
            prepared = self._answerer.prepare(item.question, item.context, Parameters())
            inferred = self._turnstile.infer([prepared], time.monotonic() + _FOREVER)
            self._answerer.decode(prepared, inferred.logits)
            return Reply(OK, {})

        return ask


class HttpTarget:
    """A server, asked over one keep-alive connection per caller."""

    def __init__(self, url: str, deadline: float | None = None) -> None:
        """`deadline` in seconds goes along with every request."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise QAError(f"{url} is not the address of a server, like http://127.0.0.1:8000.")
        self.address = (parts.hostname, parts.port or 80)
        self._deadline = "" if deadline is None else f"X-Request-Timeout: {deadline}\r\n"
        self._requests: dict[Item, bytes] = {}  # made once: the client shares the server's cores

    def request(self, item: Item) -> bytes:
        """The whole request as it goes over the wire."""
        if item in self._requests:
            return self._requests[item]
        body = json.dumps({"question": item.question, "context": item.context}).encode()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {self.address[0]}\r\n{self._deadline}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return self._requests.setdefault(item, head.encode() + body)

    def connect(self) -> Ask:
        # A bare socket: the usual clients spend more time than the server under test does.
        connection: socket.socket | None = None

        def ask(item: Item) -> Reply:
            nonlocal connection
            try:
                if connection is None:
                    connection = socket.create_connection(self.address, timeout=60)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(self.request(item))
                return _receive(connection)
            except (OSError, ValueError):
                if connection is not None:
                    connection.close()
                    connection = None
                return Reply(0, {})

        return ask


def _receive(connection: socket.socket) -> Reply:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(connection)
    head = data[:end].decode("latin-1")
    status = int(head.split(" ", 2)[1])
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    length = end + 4 + int(headers["content-length"])
    received = len(data)
    while received < length:
        received += len(_some(connection))
    if headers.get("connection", "").lower() == "close":
        raise OSError
    return Reply(status, _stages(headers.get("server-timing", "")))


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise OSError
    return data


def _stages(header: str) -> dict[str, float]:
    """Seconds by name from a Server-Timing header."""
    entries = (entry.split(";dur=") for entry in header.split(",") if ";dur=" in entry)
    return {name.strip(): float(value) / 1000 for name, value in entries}


@contextmanager
def server(flags: list[str]) -> Iterator[tuple[str, int]]:
    """Start this service on a free port; its address, and the process id of its master."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", "0", *flags],
                stdout=file,
                stderr=file,
                cwd=Path(__file__).resolve().parents[2],
            )
        try:
            yield _await_address(process, log), process.pid
        finally:
            process.terminate()
            process.wait()


def _await_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if "Serving " in line and " at http" in line:
                return line.rsplit(" at ", 1)[1]
        time.sleep(0.05)
    last = (log.read_text(errors="replace").strip() or "it said nothing").splitlines()[-1]
    raise QAError(f"The server to measure did not start: {last}")
