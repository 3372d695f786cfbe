"""Owns the targets of a benchmark: bare session, engine, a server; measures nothing."""

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from service.batching import Scheduler
from service.bench.workload import Item
from service.engine.answering import QuestionAnswerer
from service.engine.parameters import Parameters
from service.errors import QAError

_STARTUP_SECONDS = 60
_FOREVER = 3600.0  # seconds


class SessionTarget:
    """Inference alone, on windows prepared beforehand: the upper bound for the other targets."""

    def __init__(self, answerer: QuestionAnswerer, scheduler: Scheduler, items: list[Item]) -> None:
        self._scheduler = scheduler
        self._prepared = {item: answerer.prepare(item.question, item.context, Parameters()) for item in items}

    def ask(self, item: Item) -> None:
        self._scheduler.infer([self._prepared[item]], time.monotonic() + _FOREVER)


class EngineTarget:
    """The library in this process, with the scheduler of the service."""

    def __init__(self, answerer: QuestionAnswerer, scheduler: Scheduler) -> None:
        self._answerer = answerer
        self._scheduler = scheduler

    def ask(self, item: Item) -> None:
        prepared = self._answerer.prepare(item.question, item.context, Parameters())
        inferred = self._scheduler.infer([prepared], time.monotonic() + _FOREVER)
        self._answerer.decode(prepared, inferred.logits)


@contextmanager
def server(flags: list[str]) -> Iterator[tuple[str, int]]:
    """Start this service on a free port; yields its address and the process id of its master."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - this program itself
                [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", "0", *flags],
                stdout=file,
                stderr=file,
                cwd=Path(__file__).resolve().parents[2],
            )
        try:
            address = _await_address(process, log)
            _await_model(process, address)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait()


def _await_model(process: subprocess.Popen[bytes], address: str) -> None:
    url = urlsplit(address)
    deadline = time.monotonic() + _STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=_STARTUP_SECONDS)
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
        connection.close()
        if status == http.client.OK:
            return
        time.sleep(0.05)
    raise QAError("The server to measure did not load its model.")


def _await_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if "Serving " in line and " at http" in line:
                return line.rsplit(" at ", 1)[1]
        time.sleep(0.05)
    last = (log.read_text(errors="replace").strip() or "it said nothing").splitlines()[-1]
    raise QAError(f"The server to measure did not start: {last}")
