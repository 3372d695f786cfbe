"""The clock of the day may be set by hours: nothing but dates in logs and replies follows it."""

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
    """Of a request for traces, and of a benchmark's record."""
    asking = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "service").rglob("*.py")
        if re.search(r"\btime\.(time|time_ns|localtime|gmtime)\(|\.(now|utcnow|today)\(", file.read_text())
    }
    assert asking == {"service/tracing.py", "service/bench/machine.py"}


@pytest.fixture
def jumpy(start: Start) -> Service:
    return start("--access-log", PYTHONPATH=CLOCK, QA_THREADS="1")


def test_answers_and_metrics_are_correct(jumpy: Service, connect: Connect) -> None:
    wire = connect(jumpy)
    for _ in range(20):
        reply = wire.ask(QUESTION)
        assert (reply.status, reply.headers["Connection"]) == (200, "keep-alive")
        assert all(
            0 <= float(stage.split("dur=")[1]) < 60_000 for stage in reply.headers["Server-Timing"].split(",")
        )
    assert jumpy.ask(ITEM, X_Request_Timeout="20").status == 200
    assert jumpy.ask(LONG, X_Request_Timeout="0.001").status == 504
    figures = jumpy.figures()
    assert figures["qa_request_seconds_count"] == 22
    assert all(0 <= value < DAY for name, value in figures.items() if name.endswith("_seconds_sum"))
    assert all(0 <= value < DAY for name, value in figures.items() if "qa_stage_seconds_sum" in name)
    jumpy.stop()
    lines = [line for line in jumpy.log.read_text().splitlines() if "POST /predict" in line]
    milliseconds = [int(line.split()[-2]) for line in lines]
    assert len(milliseconds) == 22
    assert all(0 <= took < 60_000 for took in milliseconds)


def test_running_requests_are_drained(jumpy: Service) -> None:
    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.append(jumpy.ask(LONG)))
    asking.start()
    jumpy.await_work()
    assert jumpy.stop() == 0
    asking.join(60)
    assert [reply.status for reply in replies] == [200]


def test_workers_are_replaced_only_by_a_reload(jumpy: Service) -> None:
    """By a reload, and never since they seemed silent for hours."""
    old = jumpy.workers()
    time.sleep(3)  # the master looks at them each second
    assert jumpy.workers() == old
    jumpy.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while set(old) & set(jumpy.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert jumpy.ask(ITEM).status == 200
    assert "TIMEOUT" not in jumpy.log.read_text()


def test_json_log_lines_have_the_duration(start: Start) -> None:
    service = start(PYTHONPATH=CLOCK, QA_LOG_FORMAT="json")
    assert service.ask(ITEM).status == 200
    service.stop()
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert all(0 <= line["ms"] < 60_000 for line in lines if "ms" in line)
    assert any("ms" in line for line in lines)
