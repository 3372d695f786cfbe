"""Bulk runs on a real local Ray cluster: the output is the same, even if a worker is killed."""

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bulk.conftest import ROOT, bulk, command, make_rows, read_jsonl, write_jsonl

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra ray)"
)
COUNT = 6000
_CLUSTER = """
import sys
import service, ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Cluster:
    address: str
    pid: int

    def workers(self) -> list[int]:
        """Worker processes of the cluster that have loaded the model."""
        parents, names = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                names[int(folder.name)] = (folder / "cmdline").read_bytes()
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # exited in between
        found = []
        for pid, name in names.items():
            above = pid
            while above > 1 and above != self.pid:
                above = parents.get(above, 0)
            if above == self.pid and name.startswith(b"ray::MapWorker"):
                found.append(pid)
        return found


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """The authentication token of the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.fixture(scope="module")
def cluster(token: None) -> Iterator[Cluster]:
    """A local Ray cluster with two CPUs."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, "Ray did not start"
    yield Cluster(address, process.pid)
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An input with some invalid rows, and the output of a run without Ray."""
    folder = tmp_path_factory.mktemp("whole")
    rows = make_rows(COUNT)
    for number in range(7, COUNT, 500):
        rows[number]["context"] = ""
    source = write_jsonl(folder / "in.jsonl", rows)
    assert bulk(source, folder / "out.jsonl") == 0
    return source, folder / "out.jsonl"


def on_ray(cluster: Cluster, source: Path, output: Path, *flags: str) -> list[str]:
    return command(source, output, "--engine", "ray", "--address", cluster.address, *flags)


def test_a_killed_worker_changes_nothing(cluster: Cluster, whole: tuple[Path, Path], tmp_path: Path) -> None:
    source, expected = whole
    output, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    process = subprocess.Popen(on_ray(cluster, source, output), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    seen: set[int] = set()
    killed = 0
    while process.poll() is None:
        workers = cluster.workers()
        seen.update(workers)
        if not killed and len(workers) == 2 and journal.exists() and journal.stat().st_size > 20_000:
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.01)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert killed
    assert len(seen) == 3  # two and one replacement: each loads the model once
    assert output.read_bytes() == expected.read_bytes()
    errors = "out.jsonl.errors.jsonl"
    assert (tmp_path / errors).read_bytes() == expected.with_name(errors).read_bytes()


def test_either_engine_resumes_the_other(cluster: Cluster, whole: tuple[Path, Path], tmp_path: Path) -> None:
    source, expected = whole
    output, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    size = 0
    for line in (command(source, output), on_ray(cluster, source, output)):
        process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
        while not journal.exists() or journal.stat().st_size < size + 20_000:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not output.exists()
        size = journal.stat().st_size
    assert bulk(source, output) == 0
    assert output.read_bytes() == expected.read_bytes()
    assert len(read_jsonl(output)) == COUNT - COUNT // 500


def test_a_missing_cluster(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", make_rows(3))
    line = command(source, tmp_path / "out.jsonl", "--engine", "ray", "--address", "127.0.0.1:1")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("qa-onnx: There is no Ray cluster at 127.0.0.1:1")
