"""Run folders: locations that are missing, read-only or full; clean-up after crashes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service import runfolder
from service.errors import QAError
from service.runfolder import Address, RunFolder
from tests.service.conftest import MODEL, ROOT, Service, Start, environment
from tests.service.test_predict import ITEM

CRASHES = int(os.environ.get("CRASHES", "6"))
MASTER_CRASHES = int(os.environ.get("MASTER_CRASHES", "3"))
SHM = Path("/dev/shm")  # noqa: S108 - the usual location of run folders


def places(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(runfolder, "_places", lambda: iter(paths))


def test_the_first_writable_folder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad = [tmp_path / "missing", tmp_path / "file", Path("/proc"), Path("/sys")]
    places(monkeypatch, *bad, tmp_path)
    folder = RunFolder()
    assert folder.path.parent == tmp_path
    folder.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    places(monkeypatch, *bad)
    with pytest.raises(QAError) as caught:
        RunFolder()
    for place in bad:
        assert str(place) in caught.value.message


def test_folders_of_dead_services_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places(monkeypatch, tmp_path)
    living = RunFolder()
    living.announce(Address("a:1", "b:2"))
    dead = tmp_path / (runfolder._PREFIX + "dead")
    dead.mkdir()
    (dead / "counter_0.db").touch()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    second = RunFolder()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [living.path.name, second.path.name, "foreign"]
    )
    assert runfolder.running() == [Address("a:1", "b:2")]
    second.remove()
    living.remove()
    assert runfolder.running() == []


def isolated(python: Path, mounts: str, *, user: int = 0) -> subprocess.Popen[bytes]:
    """The service in a mount namespace; skips where that is not allowed."""
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("there is no unshare and setpriv")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount anything")
    become = f"setpriv --reuid {user} --clear-groups" if user else ""
    script = f"{mounts}; exec {become} {python} -m service serve --port 0"
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        env=environment(QA_MODEL=str(MODEL), HOME="/nowhere", PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def mounted(kind: str, *paths: str) -> str:
    options = {"read-only": "-o ro,size=1m", "full": "-o size=64k", "another's": "-o mode=755"}[kind]
    return "; ".join(f"mount -t tmpfs {options} none {path}" for path in paths)


def answers(address: str) -> bool:
    done = subprocess.run(
        [
            *(str(ROOT / ".venv/bin/python"), "-m", "service", "health"),
            *("--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
        ],
        cwd=ROOT,
        env=environment(),
    )
    return done.returncode == 0


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_another_folder_replaces_shared_memory(runtime_python: Path, kind: str) -> None:
    process = isolated(runtime_python, mounted(kind, "/dev/shm"))  # noqa: S108 - the mount point
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:
            if b"Serving " in line:
                address = line.decode().split()[-1]
                break
        assert address
        deadline = time.monotonic() + 30
        while not answers(address):
            assert time.monotonic() < deadline
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_without_a_writable_folder_the_error_lists_them(runtime_python: Path, kind: str) -> None:
    process = isolated(runtime_python, mounted(kind, "/dev/shm", "/tmp", "/var/tmp"))  # noqa: S108 - ditto
    assert process.stdout is not None
    output = b""
    for line in process.stdout:
        output += line
        if b"Serving" in line:
            process.terminate()
    process.communicate()
    assert process.returncode == 2, output
    assert output.count(b"\n") == 1, output
    assert b"/dev/shm (" in output
    assert b"/tmp (" in output


def folder_of(service: Service) -> Path:
    """The run folder of a running service."""
    (found,) = (
        file.parent
        for file in SHM.glob("qa-onnx-run-*/address.json")
        if json.loads(file.read_text())["listening"] == f"{service.host}:{service.port}"
    )
    return found


def crash(start: Start, service: Service, kills: int) -> tuple[Service, Sequence[float]]:
    """Kill all workers `kills` times; also returns the number of answers in /metrics before each time."""
    counted = []
    for _ in range(kills):
        deadline = time.monotonic() + 60
        while True:
            try:
                workers = service.workers()
                if service.ask(ITEM).status == 200:  # 503 while the new worker loads
                    counted.append(service.metrics()['qa_requests_total{status="200"}'])
                    break
            except (OSError, KeyError):
                pass
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.01)
    return service, counted


@pytest.mark.timeout(300 + 20 * CRASHES)  # 1.5 s each on two idle cores
@pytest.mark.parametrize("workers", ["1", "2"])
def test_crashed_workers_leave_few_files_and_lose_no_counts(start: Start, workers: str) -> None:
    service = start(QA_WORKERS=workers)
    folder = folder_of(service)
    descriptors = Path(f"/proc/{service.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    service, counted = crash(start, service, CRASHES)
    assert counted == sorted(counted)
    assert counted[-1] == len(counted)
    assert len(list(folder.iterdir())) <= 1 + 4 * int(workers)
    assert len(list(descriptors.iterdir())) <= before + 2 * int(workers)  # those of later workers
    assert service.stop() == 0
    assert not folder.exists()


@pytest.mark.timeout(300 + 40 * MASTER_CRASHES)
def test_crashed_masters_leave_no_folder(start: Start) -> None:
    folders = []
    for _ in range(MASTER_CRASHES):
        service = start()
        assert service.ask(ITEM).status == 200
        folders.append(folder_of(service))
        workers = service.workers()
        service.process.kill()
        service.process.wait(60)
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            time.sleep(0.01)
        assert not any(folder.exists() for folder in folders[:-1])
    service = start()
    assert not any(folder.exists() for folder in folders)
    service.stop()
