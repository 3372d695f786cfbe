"""Starts the service from the command line in the run-time environment, and sends HTTP requests to it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service import address

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/models/tiny-int8"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    data: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Service:
    """A running `python -m service serve`."""

    process: subprocess.Popen[bytes]
    log: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        return address.connect(address.describe(self.host, self.port), timeout)

    def ask(
        self,
        body: object,
        *,
        method: str = "POST",
        path: str = "/predict",
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Reply:
        """Send `body` (bytes as they are, anything else as JSON)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        used = connection or self.connect()
        try:
            used.request(method, path, data, sent)
            response = used.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            if connection is None:
                used.close()

    def get(self, path: str) -> Reply:
        return self.ask(None, method="GET", path=path)

    def metrics(self) -> dict[str, float]:
        """The values of /metrics by name and labels."""
        rows = (row.rsplit(" ", 1) for row in self.get("/metrics").data.decode().splitlines())
        return {name: float(value) for name, value in rows if name[0] != "#"}

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def await_work(self) -> None:
        """Wait until the first worker uses CPU time, as inference does."""

        def ticks() -> int:
            fields = Path(f"/proc/{self.workers()[0]}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        deadline = time.monotonic() + 60
        before = ticks()
        while ticks() - before < 0.1 * os.sysconf("SC_CLK_TCK"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Wire:
    """A raw connection to a service: sends bytes unchanged and reads one response at a time."""

    def __init__(self, service: Service) -> None:
        self.socket = socket.create_connection((service.host, service.port), timeout=60)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Reply:
        line = self._file.readline()
        assert line, "the connection was closed"
        headers = http.client.parse_headers(self._file)
        return Reply(int(line.split()[1]), headers, self._file.read(int(headers.get("Content-Length", 0))))

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.receive()

    def ended(self) -> bool:
        """Whether the service sends nothing more; blocks until it closes the connection."""
        return self._file.read() == b""

    def finish(self) -> None:
        """Shut down the sending direction."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def environment(**settings: str) -> dict[str, str]:
    """The environment variables with no settings other than these."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("QA_", "OTEL_", "PYTHONPATH"))
    } | settings


Start = Callable[..., Service]
Connect = Callable[[Service], Wire]


@pytest.fixture(scope="session")
def start(runtime_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start services on free ports; all are stopped at the end of the session."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        *flags: str,
        host: str = "127.0.0.1",
        ready: bool = True,
        python: str | Path = runtime_python,
        **settings: str,
    ) -> Service:
        log = tmp_path_factory.mktemp("service") / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [python, "-m", "service", "serve", "--port", "0", "--host", host, *flags],
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env=environment(**({"QA_MODEL": str(MODEL)} | settings)),
            )
        started.append(process)
        deadline = time.monotonic() + 60
        while "Serving " not in (text := log.read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.02)
        line = next(line for line in text.splitlines() if "Serving " in line)
        port = line.rstrip('}"').rpartition(":")[2]  # a Unix socket has none
        service = Service(process, log, host, int(port) if port.isdigit() else 0)
        if ready:
            while service.get("/health/ready").status != 200:  # takes a second on a busy machine
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        return service

    yield begin
    for process in started:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def service(start: Start) -> Service:
    """A service with small limits, shared by tests that do not change it."""
    return start(QA_MAX_BODY_BYTES="20000", QA_MAX_ITEMS="4", QA_MAX_TOP_K="5")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that are closed after the test."""
    wires: list[Wire] = []

    def begin(service: Service) -> Wire:
        wires.append(Wire(service))
        return wires[-1]

    yield begin
    for wire in wires:
        wire.close()
