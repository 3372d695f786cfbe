"""Workers that exit while loading: others continue, retries back off, repeated failure ends the service."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.restarts import Restarts
from tests.service.conftest import MODEL, Service, Start
from tests.service.test_loading import SLOW
from tests.service.test_predict import ITEM
from tests.service.test_runfolder import folder_of


def wait_until(true: Callable[[], bool], service: Service) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.05)


def loaded(service: Service) -> int:
    return service.log.read_text().count("Loaded the model")


def test_retries_back_off_exponentially() -> None:
    now = 100.0
    restarts = Restarts(lambda: now)
    assert restarts.due
    waits = []
    for _ in range(10):
        waits.append(restarts.failed())
        assert restarts.due is (waits[-1] == 0)
        now += waits[-1]
        assert restarts.due
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    exhausted = [restarts.exhausted]
    restarts.succeeded()
    assert restarts.due
    assert [*exhausted, restarts.exhausted] == [True, False]
    assert restarts.failed() == 0


def test_a_service_whose_workers_never_load_exits(start: Start, tmp_path: Path) -> None:
    """An orchestrator must see the failure; retries without back-off would occupy a CPU."""
    (tmp_path / "short").touch()
    service = start(ready=False, PYTHONPATH=SLOW, SLOW_START_KILLED_BY=str(tmp_path / "short"))
    assert service.process.wait(60) == 3
    log = service.log.read_text()
    assert log.count("Booting worker") == 5
    assert "No worker could load the model." in log
    assert "Traceback" not in log


@pytest.mark.parametrize("cause", ["killed", "refused"])
def test_a_worker_that_cannot_be_replaced_does_not_affect_the_others(
    start: Start, tmp_path: Path, cause: str
) -> None:
    model, short = tmp_path / "model", tmp_path / "short"
    shutil.copytree(MODEL, model)
    service = start(QA_WORKERS="2", QA_MODEL=str(model), PYTHONPATH=SLOW, SLOW_START_KILLED_BY=str(short))
    wait_until(lambda: loaded(service) == 2, service)
    if cause == "killed":
        short.touch()
    else:
        model.rename(tmp_path / "away")
    victim, other = service.workers()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "starts in 1 s" in service.log.read_text(), service)
    assert [service.ask(ITEM).status for _ in range(3)] == [200] * 3
    assert other in service.workers()
    if cause == "killed":
        short.unlink()
    else:
        (tmp_path / "away").rename(model)
    wait_until(lambda: loaded(service) == 3, service)
    assert len(service.workers()) == 2
    assert service.stop() == 0


def test_a_failed_start_of_a_worker_does_not_affect_the_others(start: Start) -> None:
    """Here the run folder is blocked; a failed fork is handled in the same way."""
    service = start(QA_WORKERS="2")
    wait_until(lambda: loaded(service) == 2, service)
    folder = folder_of(service)
    shutil.rmtree(folder)
    folder.touch()
    victim, other = service.workers()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "A worker cannot be started: File exists" in service.log.read_text(), service)
    assert [service.ask(ITEM).status for _ in range(3)] == [200] * 3
    assert service.workers() == [other]
    folder.unlink()
    wait_until(lambda: loaded(service) >= 4, service)
    wait_until(lambda: len(set(service.workers()) - {other}) == 2, service)
    assert service.ask(ITEM).status == 200
    assert service.stop() == 0


def test_a_removed_run_folder_is_recreated(start: Start) -> None:
    """systemd's RemoveIPC removes it from /dev/shm when the user logs out."""
    service = start()
    assert service.ask(ITEM).status == 200
    folder = folder_of(service)
    shutil.rmtree(folder)
    wait_until(lambda: loaded(service) == 2, service)
    wait_until(lambda: len(service.workers()) == 1, service)
    assert service.ask(ITEM).status == 200
    assert service.metrics()['qa_requests_total{status="200"}'] >= 1
    assert folder_of(service) == folder
    os.kill(service.workers()[0], signal.SIGKILL)
    wait_until(lambda: loaded(service) == 3, service)
    assert service.ask(ITEM).status == 200
    assert service.stop() == 0
    assert not folder.exists()


def test_no_worker_times_out_after_a_suspension(start: Start) -> None:
    """As by docker pause: no heartbeat is written meanwhile."""
    service = start()
    (worker,) = service.workers()
    for pid in (service.process.pid, worker):
        os.kill(pid, signal.SIGSTOP)
    descriptors = Path(f"/proc/{service.process.pid}/fd").iterdir()
    (heartbeat,) = [link for link in descriptors if "wgunicorn-" in str(link.readlink())]
    long_ago = time.monotonic() - 300
    os.utime(heartbeat, (long_ago, long_ago))
    time.sleep(6)  # long enough for the master to detect a suspension
    os.kill(service.process.pid, signal.SIGCONT)
    wait_until(lambda: "This process was suspended" in service.log.read_text(), service)
    time.sleep(2)  # by then it has checked the worker
    os.kill(worker, signal.SIGCONT)
    assert service.ask(ITEM).status == 200
    assert service.workers() == [worker]
    assert "TIMEOUT" not in service.log.read_text()
