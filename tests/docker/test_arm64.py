"""Builds the image for linux/arm64 and runs it under qemu-user; skipped unless prepare_arm64.sh was run.

Nothing is measured, since the speed of an emulator says nothing about hardware.
"""

import json
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from tests.docker.conftest import ROOT, Docker

BASE = "python:3.11-slim-bookworm"
ARM64_BASE = f"{BASE}-arm64"
ARM64 = ("--platform", "linux/arm64")
# The CPU of Graviton 2 and Ampere Altra. qemu's default CPU has SME2, for which ONNX Runtime quantizes
# activations per row, so that int8 scores differ slightly from those of other CPUs.
CPU_MODEL = "neoverse-n1"
TOP_K = 3
SLOW_SECONDS = 600  # a start takes some 10 s of an idle core


@pytest.fixture(scope="module")
def arm64_image(docker: Docker) -> Iterator[str]:
    if docker("image", "inspect", "-f", "{{.Architecture}}", ARM64_BASE, check=False) != "arm64":
        pytest.skip(f"there is no image {ARM64_BASE} for arm64: tests/docker/prepare_arm64.sh makes it")
    cpuinfo = docker("run", "--rm", *ARM64, ARM64_BASE, "cat", "/proc/cpuinfo", check=False)
    if not cpuinfo:
        pytest.skip("no arm64 program runs here: tests/docker/prepare_arm64.sh registers qemu-user")
    if "CPU implementer" not in cpuinfo:  # a field of Arm kernels only
        pytest.skip("qemu-user is too old, /proc/cpuinfo is this machine's: ONNX Runtime would crash on that")
    name = f"qa-test-arm64:{uuid.uuid4().hex[:8]}"
    docker(
        *("build", "--network", "host", *ARM64, "-t", name, "--build-arg", "MODEL=default"),
        *("--build-arg", f"PYTHON_IMAGE={ARM64_BASE}", "--build-arg", f"EXPORT_IMAGE={BASE}", "."),
    )
    yield name
    docker("rmi", "-f", name, check=False)


@contextmanager
def serving(docker: Docker, image: str, port: int, *arguments: str) -> Iterator[str]:
    """A container with `arguments` to docker run, once it is ready."""
    name = docker(
        *("run", "-d", *ARM64, "--network", "host", "--read-only", "--cap-drop", "ALL"),
        *("-e", f"QEMU_CPU={CPU_MODEL}", "-e", "QA_HOST=127.0.0.1", "-e", f"QA_PORT={port}"),
        *("-e", f"QA_DEADLINE_SECONDS={SLOW_SECONDS}", *arguments, image),
    )
    try:
        deadline = time.monotonic() + SLOW_SECONDS
        while True:
            try:
                fetch(port, "/health/ready")
                break
            except OSError:  # connection refused, or not ready
                assert time.monotonic() < deadline, log(docker, name)
                assert docker("inspect", "-f", "{{.State.Running}}", name) == "true", log(docker, name)
                time.sleep(0.5)
        yield name
    finally:
        docker("rm", "-f", name, check=False)


def log(docker: Docker, name: str) -> str:
    """The log of the service (stderr)."""
    done = subprocess.run([docker.program, "logs", name], stderr=subprocess.PIPE, text=True, check=True)
    return done.stderr


def fetch(port: int, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SLOW_SECONDS) as response:
        return json.load(response)


@pytest.mark.timeout(1800)  # the first build installs all packages under emulation
def test_the_reason_for_the_portable_graph_is_logged(
    docker: Docker, arm64_image: str, free_port: int
) -> None:
    assert docker("inspect", "-f", "{{.Os}}/{{.Architecture}}", arm64_image) == "linux/arm64"
    with serving(docker, arm64_image, free_port) as name:
        assert docker("exec", name, "python", "-c", "import platform; print(platform.machine())") == "aarch64"
        model = fetch(free_port, "/info")["model"]
        assert model["graph"] == "portable"
        assert model["graph_reason"].startswith("The CPU (")
        assert "avx512_vnni" in model["graph_reason"]
        assert model["graph_reason"] in log(docker, name)
        question = {"question": "Who wrote the letter?", "context": "Amelia Hart wrote the letter in 1902."}
        assert fetch(free_port, "/predict", question)["answer"] == "Amelia Hart"
        docker("stop", "-t", "60", name)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0"


@pytest.mark.parametrize(("model", "tolerance"), [("tiny-fp32", 1e-5), ("tiny-int8", 1e-3)])
@pytest.mark.timeout(1800)
def test_golden_answers_equal_those_of_the_host(
    docker: Docker, arm64_image: str, free_port: int, model: str, tolerance: float
) -> None:
    """Equal offsets; int8 scores within the tolerance of activation rounding."""
    entries = json.loads((ROOT / "tests/golden/questions.json").read_text(encoding="utf-8"))
    items = [(question, entry["context"]) for entry in entries for question in entry["questions"]]
    artifact = ROOT / "tests/models" / model
    here = QuestionAnswerer(load_artifact(artifact), kernel=False).answer(items, Parameters(top_k=TOP_K))
    asked = {
        "inputs": [{"question": question, "context": context} for question, context in items],
        "parameters": {"top_k": TOP_K},
    }
    with serving(docker, arm64_image, free_port, "-v", f"{artifact}:/model:ro", "-e", "QA_MODEL=/model"):
        there = fetch(free_port, "/predict", asked)
    assert len(there) == len(here) >= 50
    for ours, theirs in zip(here, there, strict=True):
        for ours_one, theirs_one in zip([asdict(answer) for answer in ours], theirs, strict=True):
            assert theirs_one["score"] == pytest.approx(ours_one["score"], abs=tolerance)
            for key in ("answer", "start", "end"):
                assert theirs_one[key] == ours_one[key]
