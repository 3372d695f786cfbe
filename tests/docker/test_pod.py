"""Runs the image with the settings of deploy/kubernetes and compose.yaml, without a cluster."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.docker.conftest import ROOT, Docker

QUESTION = {"question": "Who wrote the letter?", "context": "The letter was written by Amelia Hart. " * 200}


def pods() -> dict[str, dict[str, Any]]:
    def read(name: str) -> Any:
        return yaml.safe_load((ROOT / "deploy/kubernetes" / name).read_text(encoding="utf-8"))

    return {
        "kubernetes": read("deployment.yaml")["spec"]["template"]["spec"],
        "kserve": read("kserve/inferenceservice.yaml")["spec"]["predictor"],
    }


def bytes_of(quantity: str) -> int:
    units = {"Mi": 20, "Gi": 30}
    return int(quantity[:-2]) << units[quantity[-2:]]


@pytest.fixture(params=["kubernetes", "kserve"])
def pod(
    request: pytest.FixtureRequest, docker: Docker, image: str, free_port: int
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """A pod's specification, a container with its settings, and the address."""
    spec = pods()[request.param]
    (container,) = spec["containers"]
    limits, user = container["resources"]["limits"], spec["securityContext"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    options += ["--user", f"{user['runAsUser']}:{user['runAsGroup']}"]
    options += ["--memory", str(bytes_of(limits["memory"])), "--cpus", limits["cpu"]]
    for variable in container["env"]:
        options += ["-e", f"{variable['name']}={variable['value']}"]
    # Another port than the pod's, since the container uses the host's network.
    options += ["-e", f"QA_PORT={free_port}", "-e", "QA_HOST=127.0.0.1"]
    name = docker("run", "-d", "--network", "host", *options, image)
    try:
        yield spec, name, f"http://127.0.0.1:{free_port}"
    finally:
        docker("rm", "-f", name, check=False)


def status(address: str, seconds: float, body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=seconds) as reply:
            code: int = reply.status
    except urllib.error.HTTPError as error:
        code = error.code
    return code


def serving(docker: Docker, name: str) -> set[str]:
    """The process ids of the master and the workers, without those of health checks."""
    lines = docker("top", name, "-o", "pid,args").splitlines()[1:]
    return {line.split()[0] for line in lines if " health" not in line}


def probe(container: dict[str, Any], name: str, address: str) -> int:
    asked = container[name]["httpGet"]
    assert asked["port"] in ("http", container["ports"][0]["containerPort"])
    return status(address + asked["path"], container[name].get("timeoutSeconds", 1))


def test_probes_are_answered_within_the_limits(docker: Docker, pod: tuple[dict[str, Any], str, str]) -> None:
    spec, name, address = pod
    (container,) = spec["containers"]
    startup = container["startupProbe"]
    for _ in range(startup["failureThreshold"]):
        try:
            if probe(container, "startupProbe", address) == 200:
                break
        except OSError:
            pass
        time.sleep(startup["periodSeconds"])
    else:
        pytest.fail(docker("logs", name))
    processes = serving(docker, name)
    with ThreadPoolExecutor(16) as pool:
        batch = {"inputs": [QUESTION] * 16}
        asked = [pool.submit(status, address + "/predict", 120, batch) for _ in range(16)]
        failed = 0  # consecutive failures
        while not all(future.done() for future in asked):
            try:
                kinds = ("readinessProbe", "livenessProbe")
                good = {probe(container, kind, address) for kind in kinds} == {200}
            except OSError:
                good = False
            failed = 0 if good else failed + 1
            assert failed < container["readinessProbe"].get("failureThreshold", 3)
            time.sleep(0.2)
        answered = {future.result() for future in asked}
    assert answered <= {200, 429, 504}
    assert 200 in answered
    assert docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.Running}}", name) == "false true"
    assert processes == serving(docker, name)  # no worker was killed for memory


def test_stops_within_the_grace_period(docker: Docker, pod: tuple[dict[str, Any], str, str]) -> None:
    spec, name, address = pod
    (container,) = spec["containers"]
    for _ in range(60):
        try:
            if probe(container, "startupProbe", address) == 200:
                break
        except OSError:
            pass
        time.sleep(0.5)
    stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    if stop:
        docker("exec", name, *stop)  # the image has the program
        assert status(address + "/health/ready", 5) == 200
    docker("stop", "-t", str(spec["terminationGracePeriodSeconds"]), name)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0"


def test_compose_configuration_works_with_the_image(docker: Docker, image: str, free_port: int) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["qa"]
    assert service["read_only"]
    options = ["--read-only", "--cap-drop", *service["cap_drop"], "--memory", service["mem_limit"]]
    options += ["--cpus", str(service["cpus"]), "--pids-limit", str(service["pids_limit"])]
    for option in service["security_opt"]:
        options += ["--security-opt", option]
    for variable, value in service["environment"].items():
        options += ["-e", f"{variable}={value}"]
    options += ["-e", f"QA_PORT={free_port}", "-e", "QA_HOST=127.0.0.1"]
    name = docker("run", "-d", "--network", "host", *options, image)
    try:
        for _ in range(120):
            try:
                if status(f"http://127.0.0.1:{free_port}/health/ready", 5) == 200:
                    break
            except OSError:
                pass
            time.sleep(0.5)
        assert status(f"http://127.0.0.1:{free_port}/predict", 30, QUESTION) == 200
    finally:
        docker("rm", "-f", name, check=False)
