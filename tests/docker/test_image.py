"""Builds the image and runs it with production options; prints its sizes; skipped without Docker."""

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service import __version__
from tests.docker.conftest import ROOT, Docker

BASE = "python:3.11-slim-bookworm"
MEGABYTE = 1_000_000
QUESTION = {
    "question": "Who wrote the letter?",
    "context": "The letter was written by Amelia Hart in the spring of 1902.",
}
# Some 12,000 tokens.
LONG = {"question": QUESTION["question"], "context": "Nobody knows who wrote the other letters. " * 1_500}

ASK = """
import json, sys, urllib.request as u
asked = u.Request("http://127.0.0.1:8000/predict", sys.argv[1].encode(), {"Content-Type": "application/json"})
print(json.load(u.urlopen(asked))["answer"])
"""


@dataclass(frozen=True)
class Container:
    docker: Docker
    id: str
    port: int
    seconds_to_answer: float

    def ask(self) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/predict",
            json.dumps(QUESTION).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def pss_bytes(self) -> int:
        """Proportional set size (PSS) of all processes of the container."""
        total = 0
        for line in self.docker("top", self.id, "-o", "pid").splitlines()[1:]:
            rollup = Path(f"/proc/{int(line)}/smaps_rollup").read_text()
            total += sum(int(row.split()[1]) * 1024 for row in rollup.splitlines() if row.startswith("Pss:"))
        return total


@pytest.fixture
def container(docker: Docker, image: str, free_port: int) -> Iterator[Container]:
    started = time.monotonic()
    # The host's network, since publishing a port requires packet filters that not every engine may set.
    name = docker(
        *("run", "-d", "--network", "host", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--pids-limit", "256"),
        *("-e", f"QA_PORT={free_port}", "-e", "QA_HOST=127.0.0.1", image),
    )
    running = Container(docker, name, free_port, 0.0)
    try:
        while True:
            try:
                running.ask()
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() - started < 60, docker("logs", name)
                time.sleep(0.01)
        yield Container(docker, name, free_port, time.monotonic() - started)
    finally:
        docker("rm", "-f", name, check=False)


def test_works_with_a_read_only_root_as_an_unprivileged_user(docker: Docker, container: Container) -> None:
    answer = container.ask()
    assert answer["answer"] == "Amelia Hart"
    assert QUESTION["context"][26:37] == "Amelia Hart"
    assert (answer["start"], answer["end"]) == (26, 37)
    user = docker("inspect", "-f", "{{.Config.User}}", container.id)
    assert user.split(":")[0].isdigit()
    assert user.split(":")[0] != "0"
    assert docker("exec", container.id, "id", "-u") == user.split(":")[0]


def test_image_size_and_memory(docker: Docker, image: str, container: Container) -> None:
    def size(name: str) -> int:
        return int(docker("image", "inspect", "-f", "{{.Size}}", name))

    over_base = (size(image) - size(BASE)) / MEGABYTE
    for _ in range(50):
        container.ask()
    memory = container.pss_bytes() / MEGABYTE
    print(
        f"\nimage {over_base:.0f} MB over its base; "
        f"start to first answer {container.seconds_to_answer:.2f} s; "
        f"PSS of all processes {memory:.0f} MB"
    )
    assert over_base <= 150
    assert memory <= 190


def test_has_no_build_time_packages(docker: Docker, image: str) -> None:
    found = docker(
        *("run", "--rm", "--entrypoint", "python", image, "-c"),
        "import importlib.util as u; print([n for n in "
        "('torch', 'transformers', 'optimum', 'onnx', 'pip') if u.find_spec(n)])",
    )
    assert found == "[]"


def test_becomes_healthy(docker: Docker, container: Container) -> None:
    deadline = time.monotonic() + 60
    while docker("inspect", "-f", "{{.State.Health.Status}}", container.id) != "healthy":
        assert time.monotonic() < deadline, docker("inspect", container.id)
        time.sleep(0.5)


def test_stops_cleanly(docker: Docker, container: Container) -> None:
    docker("stop", "-t", "30", container.id)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", container.id) == "0"


def test_rejects_an_altered_model(docker: Docker, image: str, tmp_path: Path) -> None:
    altered = tmp_path / "model"
    shutil.copytree(ROOT / "models/default", altered)
    with (altered / "model.onnx.data").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    altered.chmod(0o755)
    done = subprocess.run(
        [docker.program, "run", "--rm", "-v", f"{altered}:/model:ro", "-e", "QA_MODEL=/model", image],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "/model/model.onnx.data" in done.stderr
    assert "Traceback" not in done.stderr


def fetch(port: int, path: str, body: object = None, timeout: float = 60) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:
        found: dict[str, object] = json.load(response)
    return found


@contextmanager
def running(docker: Docker, image: str, port: int, *limits: str) -> Iterator[str]:
    """A ready container whose port is set by a flag."""
    name = docker(
        *("run", "-d", "--network", "host", "--read-only", "--user", "12345", *limits, image),
        *("serve", "--host", "127.0.0.1", "--port", str(port)),
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                fetch(port, "/health/ready", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert time.monotonic() < deadline, docker("logs", name)
                time.sleep(0.1)
        yield name
    finally:
        docker("rm", "-f", name, check=False)


def test_becomes_healthy_with_a_port_set_by_a_flag(docker: Docker, image: str, free_port: int) -> None:
    with running(docker, image, free_port) as name:
        deadline = time.monotonic() + 60
        while docker("inspect", "-f", "{{.State.Health.Status}}", name) != "healthy":
            assert time.monotonic() < deadline, docker("inspect", name)
            time.sleep(0.5)


@pytest.mark.parametrize(("cpus", "threads"), [("0.5", 1), ("1.5", 2)])
def test_threads_respect_the_cpu_quota(
    docker: Docker,
    image: str,
    free_port: int,
    cpus: str,
    threads: int,
) -> None:
    with running(docker, image, free_port, "--cpus", cpus):
        info = fetch(free_port, "/info")
        assert isinstance(info["cpu"], dict)
        assert info["cpu"]["threads"] <= threads  # fewer where the machine has fewer
        assert fetch(free_port, "/predict", QUESTION)["answer"] == "Amelia Hart"


def test_256_megabytes_suffice(docker: Docker, image: str, free_port: int) -> None:
    """16 clients, among them some that send long documents and lists."""
    with running(docker, image, free_port, "--memory", "256m", "--memory-swap", "256m") as name:
        failures: list[str] = []

        def ask(number: int) -> None:
            bodies = [QUESTION, [QUESTION] * 100, LONG]
            for turn in range(6):
                try:
                    fetch(
                        free_port, "/predict", bodies[(number + turn) % (3 if number < 3 else 2)], timeout=120
                    )
                except urllib.error.HTTPError as error:
                    if error.code not in (429, 504):  # overload is not a memory failure
                        failures.append(str(error))
                except OSError as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
        assert failures == []
        assert docker("inspect", "-f", "{{.State.OOMKilled}} {{.RestartCount}}", name) == "false 0"
        assert "out of memory" not in docker("logs", name)
        assert fetch(free_port, "/predict", QUESTION)["answer"] == "Amelia Hart"


def test_an_exported_folder_becomes_an_image_without_torch(docker: Docker, image: str) -> None:
    """From any folder; all layers except the model's are cached from `image`."""
    name = "qa-test-exported"
    built = subprocess.run(
        ["make", "image", "MODEL=tests/models/tiny-int8", f"IMAGE={name}", "FLAGS=--network host"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(docker.program).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    try:
        assert "int8 for" in docker("run", "--rm", f"{name}:{__version__}", "check")
    finally:
        docker("rmi", "-f", name, f"{name}:{__version__}")
    assert not (ROOT / "models/exported").exists()


def test_works_without_a_network_after_docker_load(docker: Docker, image: str, tmp_path: Path) -> None:
    """`docker save`, `docker load`, and a container whose only interface is its loopback."""
    carried = f"{image}-carried"
    docker("tag", image, carried)
    docker("save", "-o", str(tmp_path / "image.tar"), carried)
    docker("rmi", carried)
    docker("load", "-i", str(tmp_path / "image.tar"))
    name = docker("run", "-d", "--network", "none", "--read-only", carried)
    try:
        deadline = time.monotonic() + 60
        while not docker("exec", name, "python", "-c", ASK, json.dumps(QUESTION), check=False):
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(0.5)
        assert docker("exec", name, "python", "-c", ASK, json.dumps(QUESTION)) == "Amelia Hart"
        assert docker("exec", name, "python", "-m", "service", "health") == ""
    finally:
        docker("rm", "-f", name, check=False)
        docker("rmi", "-f", carried, check=False)
