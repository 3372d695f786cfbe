"""The inherited process environment: variables, open files, resource limits."""

import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.conftest import MODEL, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_settings import GUNICORN_VARIABLES
from tests.service.wire import QUESTION

Wrap = Callable[[str], Path]


@pytest.fixture
def wrapped(tmp_path: Path, runtime_python: Path) -> Wrap:
    """An interpreter that is started by a shell script after a given command."""

    def wrap(command: str) -> Path:
        script = tmp_path / "python"
        script.write_text(f'#!/bin/bash\n{command}\nexec {runtime_python} "$@"\n')
        script.chmod(0o755)
        return script

    return wrap


def processes(service: Service) -> list[int]:
    return [service.process.pid, *service.workers()]


def test_variables_of_other_servers_are_ignored(start: Start) -> None:
    """Each of them alone once prevented the startup or broke every answer."""
    service = start(LISTEN_PID="x", LISTEN_FDS="x", **GUNICORN_VARIABLES)
    assert service.ask(ITEM).status == 200
    assert len(service.workers()) == 1


def test_closed_standard_streams_are_opened_on_dev_null(start: Start, wrapped: Wrap) -> None:
    """Otherwise connections get their descriptors, and receive what libraries write to stderr."""
    # stderr stays open, since the fixture waits for a line of the log.
    service = start(python=wrapped("exec 0<&- 1>&-"))
    for pid in processes(service):
        for number in (0, 1):
            assert Path(f"/proc/{pid}/fd/{number}").readlink() == Path(os.devnull)
    assert service.ask(ITEM).status == 200


def test_the_soft_limit_of_descriptors_is_raised(start: Start, wrapped: Wrap) -> None:
    service = start(python=wrapped("ulimit -S -n 256"))
    for pid in processes(service):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] > 256
    assert service.ask(ITEM).status == 200


def test_more_connections_than_descriptors_wait(start: Start, wrapped: Wrap) -> None:
    service = start(python=wrapped("ulimit -n 100"))
    workers = service.workers()
    waiting = [socket.create_connection((service.host, service.port), timeout=60) for _ in range(150)]
    time.sleep(0.5)
    for connection in waiting:
        connection.close()
    assert service.ask(ITEM).status == 200
    assert service.workers() == workers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set the limits of another process")
def test_a_worker_without_free_descriptors_continues(start: Start) -> None:
    service = start()
    (worker,) = service.workers()
    assert service.ask(ITEM).status == 200
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    highest = max(int(link.name) for link in Path(f"/proc/{worker}/fd").iterdir())
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (highest + 4, limits[1]))
    waiting = [socket.create_connection((service.host, service.port), timeout=60) for _ in range(20)]
    deadline = time.monotonic() + 60
    while "has to wait: Too many open files" not in service.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for connection in waiting:
        connection.close()
    assert service.ask(ITEM).status == 200
    assert service.workers() == [worker]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_log_lines_are_written_in_any_encoding_of_the_stream(
    start: Start, tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "modèle-模型").symlink_to(MODEL)
    model = tmp_path / "modèle-模型"
    service = start(
        "--log-format", "json", QA_MODEL=str(model), PYTHONIOENCODING=encoding, QA_MODEL_NAME="模型"
    )
    assert service.ask(ITEM).status == 200
    assert service.stop() == 0
    lines = [json.loads(line) for line in service.log.read_bytes().splitlines()]
    assert [line["model"] for line in lines if line.get("route") == "/predict"] == ["模型"]
    assert any(str(model) in line["message"] for line in lines)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="requires root and setpriv")
def test_more_clients_than_threads_are_allowed_wait(
    start: Start, wrapped: Wrap, runtime_python: Path
) -> None:
    """As with a small pids limit of a container."""
    # Not as root, which has no such limit; with access to all files, as the checkout may be private.
    keep = "--inh-caps=+dac_override --ambient-caps=+dac_override"
    become = f"setpriv --reuid 12345 --clear-groups {keep} prlimit --nproc=40"
    service = start(python=wrapped(f'exec {become} {runtime_python} "$@"'), HOME="/nowhere")
    workers = service.workers()
    slow = [socket.create_connection((service.host, service.port), timeout=60) for _ in range(60)]
    for connection in slow:
        connection.sendall(QUESTION[:-1])
    time.sleep(1)  # usually enough for all to be accepted
    for connection in slow:
        connection.sendall(QUESTION[-1:])
    for connection in slow:
        assert connection.recv(100).startswith(b"HTTP/1.1 ")
        connection.close()
    assert service.ask(ITEM).status == 200
    assert service.workers() == workers
