"""The server process: startup, /info, logs, metrics, shutdown, and replacement of workers."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from service import __version__
from tests.service.conftest import MODEL, ROOT, Reply, Service, Start, environment
from tests.service.test_predict import ITEM

LONG = {"question": "Where?", "context": "The island is far away. " * 6_000}


def test_health_and_info(service: Service) -> None:
    assert service.get("/health/live").body == {"status": "live"}
    assert service.get("/health/ready").body == {"status": "ready"}
    info = service.get("/info").body
    assert info["service"]["version"] == __version__
    assert info["model"]["path"] == str(MODEL)
    assert info["model"]["precision"] == "int8"
    assert info["limits"]["max_items"] == 4
    assert info["cpu"]["threads"] >= 1


def test_the_model_in_use_is_named_in_the_log(service: Service) -> None:
    assert f"Serving {MODEL} at http://127.0.0.1:{service.port}" in service.log.read_text()


def test_onnx_runtime_is_loaded_in_every_serving_process(start: Start) -> None:
    service = start(QA_WORKERS="2", QA_MODEL="models/default")

    def loaded(library: str) -> int:
        return sum(library in Path(f"/proc/{worker}/maps").read_text() for worker in service.workers())

    deadline = time.monotonic() + 60
    while loaded("/onnxruntime_pybind11_state") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.ask(ITEM).status == 200
    model = service.get("/info").body["model"]
    if model["graph"] == "avx512_vnni":
        assert model["graph_reason"] is None
        assert loaded("/operator-") >= 1
    else:
        assert model["graph"] == "portable"
        assert model["graph_reason"].endswith(".")


def test_the_reason_for_the_portable_graph_is_reported(start: Start) -> None:
    service = start(QA_MODEL="models/default", QA_KERNEL="0")
    model = service.get("/info").body["model"]
    assert (model["graph"], model["graph_reason"]) == ("portable", "QA_KERNEL=0 asks for the portable graph.")
    line = "Serving models/default at"
    assert line in service.log.read_text()
    assert "Loaded the portable graph: QA_KERNEL=0 asks for the portable graph." in service.log.read_text()


def test_the_master_imports_nothing_that_starts_threads(service: Service) -> None:
    """A fork would lose the threads of ONNX Runtime and NumPy."""
    maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "msgspec" in maps
    assert "onnxruntime" not in maps
    assert "numpy" not in maps


def test_health_command(service: Service, runtime_python: Path, free_port: int) -> None:
    def health(port: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [runtime_python, "-m", "service", "health", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=environment(),
        )

    assert health(service.port).returncode == 0
    nobody = health(free_port)
    assert nobody.returncode == 1
    assert str(free_port) in nobody.stderr
    assert nobody.stderr.count("\n") == 1


def test_running_requests_are_answered_before_it_stops(start: Start) -> None:
    service = start(QA_THREADS="1")
    idle = service.connect()
    service.ask(ITEM, connection=idle)  # an idle connection must not delay the stop
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(service.ask(LONG))) for _ in range(2)]
    for thread in threads:
        thread.start()
    service.await_work()
    assert service.stop() == 0
    for thread in threads:
        thread.join(60)
    assert [reply.status for reply in replies] == [200, 200]
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        service.ask(ITEM)


def test_a_killed_worker_is_replaced(start: Start) -> None:
    service = start(QA_WORKERS="2")
    deadline = time.monotonic() + 60
    while len(first := set(service.workers())) != 2:  # it serves as soon as the first is ready
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    while True:
        try:
            if service.ask(ITEM).status == 200:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while len(set(service.workers()) - first) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.stop() == 0


def test_ipv6(start: Start) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert start(host="::1").ask(ITEM).status == 200


def test_access_log_has_no_texts(start: Start) -> None:
    service = start("--access-log")
    service.ask({"question": "Who is Rumpelstiltskin?", "context": "Nobody knows Rumpelstiltskin."})
    service.stop()
    log = service.log.read_text()
    assert "POST /predict" in log
    assert "Rumpelstiltskin" not in log


def startup_error(python: Path, *flags: str, **settings: str) -> str:
    done = subprocess.run(
        [python, "-m", "service", "serve", "--port", "0", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(**settings),
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("qa-onnx: ")
    return done.stderr


def test_startup_errors_are_one_sentence(runtime_python: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in startup_error(runtime_python, QA_MODEL=str(tmp_path / "none"))
    altered = tmp_path / "altered"
    shutil.copytree(MODEL, altered)
    with (altered / "model.onnx.data").open("r+b") as file:
        file.truncate(1000)
    assert str(altered / "model.onnx.data") in startup_error(runtime_python, QA_MODEL=str(altered))
    assert "QA_PROT" in startup_error(runtime_python, QA_MODEL=str(MODEL), QA_PROT="1")
    assert "--threads" in startup_error(runtime_python, "--threads", "-1", QA_MODEL=str(MODEL))


def test_a_model_with_an_altered_byte_stops_the_startup(runtime_python: Path, tmp_path: Path) -> None:
    """Hashes are verified while the service is live but not ready."""
    altered = tmp_path / "altered"
    shutil.copytree(MODEL, altered)
    data = bytearray((altered / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (altered / "model.onnx.data").write_bytes(data)
    done = subprocess.run(
        [runtime_python, "-m", "service", "serve", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(QA_MODEL=str(altered)),
        timeout=60,
    )
    assert done.returncode == 2
    assert f"{altered}/model.onnx.data does not have the sha256 its manifest says" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("log", [">/dev/full 2>&1", ">&- 2>&-", "> >(exit) 2>&1"])
@pytest.mark.parametrize("flags", ["--access-log", "--log-format json"])
def test_an_unwritable_log_does_not_stop_the_service(
    runtime_python: Path, free_port: int, log: str, flags: str
) -> None:
    """A full disk, closed streams, a pipe without a reader."""
    command = f"exec {runtime_python} -m service serve --port {free_port} {flags} {log}"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=ROOT, env=environment(QA_MODEL=str(MODEL)), stderr=subprocess.DEVNULL
    )
    service = Service(process, Path("/nowhere"), "127.0.0.1", free_port)
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        with suppress(OSError):
            if service.get("/health/ready").status == 200:
                break
        time.sleep(0.05)
    assert [service.ask(ITEM).status for _ in range(3)] == [200] * 3
    assert service.ask(b"{").status == 400
    assert service.stop() == 0


def test_a_flag_overrides_the_environment(start: Start, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(MODEL, mine)
    service = start("--model", str(mine), QA_MODEL="/nowhere")
    assert service.get("/info").body["model"]["path"] == str(mine)


def test_a_port_in_use_is_reported(service: Service, runtime_python: Path) -> None:
    done = subprocess.run(
        [runtime_python, "-m", "service", "serve", "--port", str(service.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(QA_MODEL=str(MODEL)),
        timeout=60,
    )
    assert done.returncode != 0
    assert "in use" in done.stderr


def test_metrics_include_dead_workers(start: Start) -> None:
    service = start(QA_WORKERS="2")
    for _ in range(10):  # on separate connections, so that both workers get some
        service.ask(ITEM)
    service.ask({"question": ""})
    assert service.get("/metrics").headers["Content-Type"].startswith("text/plain")
    before = service.metrics()
    assert before['qa_requests_total{status="200"}'] == 10
    assert before['qa_requests_total{status="422"}'] == 1
    assert before["qa_questions_total"] == 10
    assert before["qa_tokens_total"] > 100
    assert before['qa_stage_seconds_count{stage="infer"}'] == 10
    assert before["qa_request_seconds_count"] == 11
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    deadline = time.monotonic() + 60
    while True:
        try:
            after = service.metrics()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert after['qa_requests_total{status="200"}'] == 10
    leftovers = set(Path("/dev/shm").glob("qa-onnx-*"))  # noqa: S108 - the folder of the metrics
    service.stop()
    assert len(leftovers - set(Path("/dev/shm").glob("qa-onnx-*"))) == 1  # noqa: S108 - ditto
