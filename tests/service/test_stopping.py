"""Signals under load: stops and reloads lose no request that has reached a socket."""

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.service.conftest import MODEL, Connect, Service, Start, Wire
from tests.service.test_predict import ITEM
from tests.service.wire import QUESTION, message

READY = message(b"", line="GET /health/ready HTTP/1.1")


@dataclass
class Client:
    """Sends requests until its connection is refused; all other failures are in `lost`."""

    service: Service
    keep: bool  # keep-alive
    stop: threading.Event
    answered: int = 0
    lost: list[str] = field(default_factory=list)

    def run(self) -> None:
        question = QUESTION if self.keep else message(QUESTION.partition(b"\r\n\r\n")[2], "Connection: close")
        while not self.stop.is_set():
            try:
                wire = Wire(self.service)
            except ConnectionRefusedError:
                return
            try:
                while not self.stop.is_set():
                    reply = wire.ask(question)
                    if reply.status != 200:
                        self.lost.append(str(reply.status))
                    self.answered += 1
                    if reply.headers["Connection"] == "close":
                        if not wire.ended():
                            self.lost.append("more than an answer")
                        break
            except (AssertionError, OSError) as error:
                self.lost.append(repr(error))
            finally:
                wire.close()


@contextmanager
def load(service: Service, keep_alive: int, reconnecting: int) -> Iterator[list[Client]]:
    """Run clients that keep their connections alive, and clients that reconnect for each request."""
    stop = threading.Event()
    clients = [Client(service, number < keep_alive, stop) for number in range(keep_alive + reconnecting)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while min(client.answered for client in clients) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield clients
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def lost(clients: list[Client]) -> list[str]:
    return [one for client in clients for one in client.lost]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_stopping_under_load_loses_no_request(start: Start, workers: str) -> None:
    """16 clients on keep-alive connections and 8 that reconnect get answers, then a refused connection."""
    service = start(QA_WORKERS=workers, QA_MAX_WAITING="100")
    with load(service, 16, 8) as clients:
        assert service.stop() == 0
    print(f"\n{sum(client.answered for client in clients)} answered, {len(lost(clients))} lost")
    assert lost(clients) == []
    with pytest.raises(ConnectionRefusedError):
        Wire(service)


def test_connections_are_closed_while_stopping(start: Start, connect: Connect) -> None:
    service = start()
    silent, idle = connect(service), connect(service)
    assert idle.ask(QUESTION).headers["Connection"] == "keep-alive"
    time.sleep(0.1)  # usually enough for both to be accepted
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    reply = idle.ask(READY)
    assert (reply.status, reply.headers["Connection"]) == (503, "close")
    reply = silent.ask(QUESTION)
    assert (reply.status, reply.headers["Connection"]) == (200, "close")
    assert service.process.wait(60) == 0


def test_signals_for_the_master_do_not_end_a_worker(start: Start) -> None:
    service = start()
    (worker,) = service.workers()
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        os.kill(worker, number)
    assert service.ask(ITEM).status == 200
    assert service.workers() == [worker]


def test_an_idle_connection_does_not_delay_the_stop(start: Start, connect: Connect) -> None:
    service = start(QA_DRAIN_SECONDS="60")
    connect(service)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 30  # connections in use would have twice that time


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model, to be replaced."""
    shutil.copytree(MODEL, tmp_path / "model")
    return tmp_path / "model"


def replace(folder: Path, change: str) -> None:
    """Replace the folder's model by rename, which leaves mapped files intact."""
    new, old = folder.with_name("new"), folder.with_name(f"old{time.monotonic_ns()}")
    shutil.copytree(MODEL, new)
    manifest = new / "manifest.json"
    if change == "altered":
        with (new / "tokenizer.json").open("ab") as file:
            file.write(b" ")
    elif change == "unloadable":  # all its hashes are right
        (new / "model.onnx").write_bytes(b"no graph")
        facts = json.loads(manifest.read_text())
        facts["files"]["model.onnx"] = {"sha256": hashlib.sha256(b"no graph").hexdigest(), "bytes": 8}
        facts["files"] = {k: v for k, v in facts["files"].items() if "avx512" not in k}
        manifest.write_text(json.dumps(facts))
    else:
        facts = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(facts | {"label": change}))
    folder.rename(old)
    new.rename(folder)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_under_load_fails_no_request(start: Start, folder: Path, workers: str) -> None:
    service = start(QA_MODEL=str(folder), QA_WORKERS=workers, QA_MAX_WAITING="100")
    old = set(service.workers())
    with load(service, 8, 4) as clients:
        for label in ("second", "third"):
            replace(folder, label)
            service.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 60
            while set(service.workers()) & old or len(service.workers()) != int(workers):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert service.get("/info").body["model"]["label"] == label
            old = set(service.workers())
        before = sum(client.answered for client in clients)
        metrics = service.metrics()['qa_requests_total{status="200"}']
    assert lost(clients) == []
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()
    assert "exited with code" not in service.log.read_text()
    assert metrics >= before - 12  # requests in flight; the counts of replaced workers are kept


@pytest.mark.parametrize("change", ["altered", "unloadable"])
def test_a_bad_model_is_rejected_and_the_old_one_serves(start: Start, folder: Path, change: str) -> None:
    service = start(QA_MODEL=str(folder))
    workers = service.workers()
    replace(folder, change)
    with load(service, 4, 2) as clients:
        service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while "Nothing is reloaded" not in service.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert lost(clients) == []
    assert service.ask(ITEM).status == 200
    assert service.workers() == workers
    replace(folder, "good")
    service.process.send_signal(signal.SIGHUP)
    while service.get("/info").body["model"].get("label") != "good":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.stop() == 0


def test_a_later_worker_loads_the_current_model(start: Start, folder: Path) -> None:
    """It does not combine the new files with the old manifest."""
    service = start(QA_MODEL=str(folder))
    replace(folder, "next")
    assert "label" not in service.get("/info").body["model"]
    os.kill(service.workers()[0], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            if service.get("/info").body.get("model", {}).get("label") == "next":
                break
        except (OSError, HTTPException):
            pass
        time.sleep(0.02)
    assert service.ask(ITEM).status == 200


def test_other_signals_are_ignored(start: Start) -> None:
    service = start()
    workers = service.workers()
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE):
        service.process.send_signal(number)
        assert service.ask(ITEM).status == 200
    deadline = time.monotonic() + 60
    while "SIGUSR2 does nothing" not in service.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert service.workers() == workers
    assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGABRT, signal.SIGINT])
def test_a_failed_worker_of_a_reload_does_not_stop_the_service(start: Start, number: signal.Signals) -> None:
    service = start()
    (first,) = service.workers()
    service.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while first in service.workers() or len(service.workers()) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (second,) = service.workers()
    os.kill(second, number)
    while second in service.workers() or not service.workers():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while service.get("/health/ready").status != 200:
        assert time.monotonic() < deadline
    assert service.ask(ITEM).status == 200
    assert "Unhandled exception" not in service.log.read_text()
    assert service.stop() == 0


def test_a_suspended_worker_continues(start: Start, connect: Connect) -> None:
    service = start()
    (worker,) = service.workers()
    wire = connect(service)
    os.kill(worker, signal.SIGSTOP)
    wire.send(QUESTION)
    time.sleep(0.5)
    os.kill(worker, signal.SIGCONT)
    assert wire.receive().status == 200
    assert service.workers() == [worker]


def test_a_killed_worker_is_replaced_soon(start: Start) -> None:
    service = start()
    (worker,) = service.workers()
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    while True:
        try:
            if service.get("/health/ready").status == 200 and service.workers() != [worker]:
                break
        except (OSError, ConnectionError):
            pass
        assert time.monotonic() - began < 3  # seconds, the required maximum
        time.sleep(0.02)
    assert service.ask(ITEM).status == 200


def test_workers_exit_if_the_master_is_killed(start: Start) -> None:
    service = start(QA_WORKERS="2")
    deadline = time.monotonic() + 60
    while len(workers := service.workers()) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.process.kill()
    service.process.wait(60)
    began = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() - began < 3  # seconds, the required maximum
        time.sleep(0.02)
    again = start("--port", str(service.port))  # its port is free
    assert again.port == service.port
