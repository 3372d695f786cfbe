"""Workers that end before they have loaded: the others go on, the next attempt waits, hopeless ones end."""

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


def test_attempts_wait_longer_and_longer() -> None:
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


def test_a_service_whose_workers_never_load_ends(start: Start, tmp_path: Path) -> None:
    """An orchestrator must see it; a loop without pause would take a CPU from others for ever."""
    (tmp_path / "short").touch()
    service = start(ready=False, PYTHONPATH=SLOW, SLOW_START_KILLED_BY=str(tmp_path / "short"))
    assert service.process.wait(60) == 3
    log = service.log.read_text()
    assert log.count("Booting worker") == 5
    assert "No worker could load the model." in log
    assert "Traceback" not in log


@pytest.mark.parametrize("cause", ["killed", "refused"])
def test_a_worker_that_cannot_be_replaced_does_not_end_the_others(
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


def test_a_system_that_allows_no_further_worker_does_not_end_the_others(start: Start) -> None:
    """Here the place to write is blocked; no memory or process for a worker is met in the same way."""
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


def test_a_folder_that_was_removed_is_made_again(start: Start) -> None:
    """As systemd's RemoveIPC does with what is in /dev/shm when the user logs out."""
    service = start()
    assert service.ask(ITEM).status == 200
    folder = folder_of(service)
    shutil.rmtree(folder)
    wait_until(lambda: loaded(service) == 2, service)
    wait_until(lambda: len(service.workers()) == 1, service)
    assert service.ask(ITEM).status == 200
    assert service.figures()['qa_requests_total{status="200"}'] >= 1
    assert folder_of(service) == folder
    os.kill(service.workers()[0], signal.SIGKILL)
    wait_until(lambda: loaded(service) == 3, service)
    assert service.ask(ITEM).status == 200
    assert service.stop() == 0
    assert not folder.exists()


def test_no_worker_is_taken_for_dead_after_all_were_suspended(start: Start) -> None:
    """As with docker pause: nobody gave a sign of life meanwhile."""
    service = start()
    (worker,) = service.workers()
    for pid in (service.process.pid, worker):
        os.kill(pid, signal.SIGSTOP)
    descriptors = Path(f"/proc/{service.process.pid}/fd").iterdir()
    (heartbeat,) = [link for link in descriptors if "wgunicorn-" in str(link.readlink())]
    long_ago = time.monotonic() - 300
    os.utime(heartbeat, (long_ago, long_ago))
    time.sleep(6)  # what the master takes for a suspension
    os.kill(service.process.pid, signal.SIGCONT)
    wait_until(lambda: "This process was suspended" in service.log.read_text(), service)
    time.sleep(2)  # by then it has looked at the worker
    os.kill(worker, signal.SIGCONT)
    assert service.ask(ITEM).status == 200
    assert service.workers() == [worker]
    assert "TIMEOUT" not in service.log.read_text()
