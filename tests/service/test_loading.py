"""A model that loads slowly: the service is live but not ready, and no worker times out."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.engine import session
from service.engine.artifact import load_artifact
from service.engine.kernel import portable_graph
from service.settings import DEFAULT_MODEL
from tests.service.conftest import MODEL, ROOT, Service, Start, environment
from tests.service.test_predict import ITEM
from tests.service.test_refusals import assert_error
from tests.service.test_stopping import load, lost

PYTHON = ROOT / ".venv/bin/python"
SLOW = str(Path(__file__).parent / "slow_start")


def wait_ready(service: Service, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while service.get("/health/ready").status != 200:
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.1)


def test_while_loading_it_is_live_but_not_ready(start: Start) -> None:
    service = start(ready=False, PYTHONPATH=SLOW, SLOW_START_SECONDS="4", QA_ROOT_PATH="/qa")
    assert service.get("/health/live").status == 200
    (worker,) = service.workers()
    for reply in (service.get("/health/ready"), service.ask(ITEM), service.ask(ITEM, path="/qa/predict")):
        assert_error(reply, 503, "not_ready")
        assert int(reply.headers["Retry-After"]) >= 1
    assert service.metrics()['qa_requests_total{status="503"}'] == 2
    assert service.get("/ping").body["type"] == "ServiceUnavailableException"  # in every protocol's form
    hub = service.ask(None, method="GET", path="/health", User_Agent="unknown; hf_hub/2.0")
    assert hub.body["estimated_time"] >= 1
    wait_ready(service, 30)
    assert service.ask(ITEM).status == 200
    metrics = service.metrics()
    assert metrics['qa_requests_total{status="503"}'] == 2
    assert metrics['qa_requests_total{status="200"}'] == 1
    assert service.workers() == [worker]


def test_loading_may_exceed_the_worker_timeout(start: Start) -> None:
    """gunicorn's worker timeout is 30 s without a heartbeat, and parts of loading block the heartbeat."""
    service = start(ready=False, PYTHONPATH=SLOW, SLOW_START_SECONDS="1", SLOW_START_HOLD_SECONDS="34")
    deadline = time.monotonic() + 90
    while len(workers := service.workers()) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    while "Loaded the model" not in service.log.read_text():
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.1)
    assert service.ask(ITEM).status == 200
    assert service.workers() == workers
    assert "TIMEOUT" not in service.log.read_text()


def test_onnx_runtime_releases_the_gil_while_loading() -> None:
    """Health checks during loading depend on it, and it differs between versions."""
    graph = portable_graph(load_artifact(DEFAULT_MODEL), "")
    session._load(graph, 1)  # imports
    turns, loaded = 0, threading.Event()

    def count() -> None:
        nonlocal turns
        while not loaded.is_set():
            turns += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    counting = threading.Thread(target=count)
    counting.start()
    try:
        sys.setswitchinterval(1000)  # seconds: from here on, threads switch only where the GIL is released
        before = turns
        session._load(graph, 1)
        during = turns - before
    finally:
        sys.setswitchinterval(interval)
        loaded.set()
        counting.join()
    assert during > 20


def test_it_can_be_stopped_while_loading(start: Start) -> None:
    service = start(ready=False, PYTHONPATH=SLOW, SLOW_START_SECONDS="30")
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 15  # it would load for 30 s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped_before_listening(number: signal.Signals) -> None:
    slow = {"PYTHONPATH": SLOW, "SLOW_START_MODULE": "gunicorn", "SLOW_START_SECONDS": "300"}
    process = subprocess.Popen(
        [PYTHON, "-m", "service", "serve", "--port", "0"],
        cwd=ROOT,
        env=environment(QA_MODEL=str(MODEL), **slow),
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"Waiting for gunicorn\n"
    # PID 1 of a container receives only signals for which it has a handler.
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    assert caught >> (number - 1) & 1
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 128 + number


def test_repeated_reloads_are_merged_and_do_not_delay_the_stop(start: Start) -> None:
    service = start(PYTHONPATH=SLOW, SLOW_START_SECONDS="7")
    for _ in range(20):
        service.process.send_signal(signal.SIGHUP)
        time.sleep(0.02)  # otherwise the kernel merges them
    deadline = time.monotonic() + 60
    while "Hang up" not in service.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.stop() == 0  # in less than a minute; so many reloads would take more than two
    assert service.log.read_text().count("Hang up") <= 2


@pytest.mark.parametrize("how", ["replaced", "reloaded"])
def test_a_loading_worker_gets_no_requests(start: Start, how: str) -> None:
    service = start(QA_WORKERS="2", PYTHONPATH=SLOW, SLOW_START_SECONDS="3", QA_MAX_WAITING="100")
    deadline = time.monotonic() + 60
    while len(service.workers()) != 2 or service.log.read_text().count("Loaded the model") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    old = set(service.workers())
    with load(service, 4, 4) as clients:
        if how == "reloaded":
            service.process.send_signal(signal.SIGHUP)
        else:
            os.kill(min(old), signal.SIGKILL)
        while service.log.read_text().count("Loaded the model") < (4 if how == "reloaded" else 3):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if how == "reloaded":
            while old & set(service.workers()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    met = lost(clients)
    assert "503" not in met
    assert how == "replaced" or met == []
