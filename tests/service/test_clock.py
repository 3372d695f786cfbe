"""Jumps of the wall clock by hours affect only dates in logs and responses."""

import json
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.service.conftest import ROOT, Connect, Reply, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_process import LONG
from tests.service.wire import QUESTION

CLOCK = str(Path(__file__).parent / "jumping_clock")
DAY = 24 * 3600.0


def test_only_displayed_dates_use_the_wall_clock() -> None:
    """Those of traces and of benchmark records."""
    readers = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "service").rglob("*.py")
        if re.search(r"\btime\.(time|time_ns|localtime|gmtime)\(|\.(now|utcnow|today)\(", file.read_text())
    }
    assert readers == {"service/tracing.py", "service/bench/machine.py"}


@pytest.fixture
def jumping(start: Start) -> Service:
    return start("--access-log", PYTHONPATH=CLOCK, QA_THREADS="1")


def test_answers_and_metrics_are_correct(jumping: Service, connect: Connect) -> None:
    wire = connect(jumping)
    for _ in range(20):
        reply = wire.ask(QUESTION)
        assert (reply.status, reply.headers["Connection"]) == (200, "keep-alive")
        assert all(
            0 <= float(stage.split("dur=")[1]) < 60_000 for stage in reply.headers["Server-Timing"].split(",")
        )
    assert jumping.ask(ITEM, X_Request_Timeout="20").status == 200
    assert jumping.ask(LONG, X_Request_Timeout="0.001").status == 504
    metrics = jumping.metrics()
    assert metrics["qa_request_seconds_count"] == 22
    assert all(0 <= value < DAY for name, value in metrics.items() if name.endswith("_seconds_sum"))
    assert all(0 <= value < DAY for name, value in metrics.items() if "qa_stage_seconds_sum" in name)
    jumping.stop()
    lines = [line for line in jumping.log.read_text().splitlines() if "POST /predict" in line]
    milliseconds = [int(line.split()[-2]) for line in lines]
    assert len(milliseconds) == 22
    assert all(0 <= took < 60_000 for took in milliseconds)


def test_running_requests_are_drained(jumping: Service) -> None:
    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.append(jumping.ask(LONG)))
    asking.start()
    jumping.await_work()
    assert jumping.stop() == 0
    asking.join(60)
    assert [reply.status for reply in replies] == [200]


def test_workers_are_replaced_only_by_a_reload(jumping: Service) -> None:
    """Not because their heartbeats seem to be hours old."""
    old = jumping.workers()
    time.sleep(3)  # the master checks heartbeats each second
    assert jumping.workers() == old
    jumping.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while set(old) & set(jumping.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert jumping.ask(ITEM).status == 200
    assert "TIMEOUT" not in jumping.log.read_text()


def test_json_log_lines_have_the_duration(start: Start) -> None:
    service = start(PYTHONPATH=CLOCK, QA_LOG_FORMAT="json")
    assert service.ask(ITEM).status == 200
    service.stop()
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert all(0 <= line["ms"] < 60_000 for line in lines if "ms" in line)
    assert any("ms" in line for line in lines)
