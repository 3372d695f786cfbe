"""Installs the service under systemd, behind nginx, on a machine without a network.

The machine is a container with systemd as PID 1. The tests depend on each other, in this order.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.docker.conftest import ROOT, Docker

# What systemd requires as PID 1; some engines do not allow --privileged.
CAPABILITIES = (
    *("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_NICE", "SYSLOG", "SYS_BOOT"),
    *("LINUX_IMMUTABLE", "IPC_LOCK", "AUDIT_CONTROL"),
)
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
QUESTION = json.dumps(
    {"question": "Who wrote it?", "context": "The letter was written by Amelia Hart in 1902."}
)
INSTALL = "PIP_NO_INDEX=1 WHEELS=$PWD/wheels CC=false deploy/systemd/install.sh"
LOAD = """
import http.client, json, sys, time
body = sys.argv[1]
statuses = {}
while not __import__("os").path.exists("/tmp/stop"):
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        status = str(connection.getresponse().status)
    except OSError as error:
        status = repr(error)
    connection.close()
    statuses[status] = statuses.get(status, 0) + 1
    json.dump(statuses, open("/tmp/statuses", "w"))
"""


@dataclass(frozen=True)
class Machine:
    docker: Docker
    id: str

    def __call__(self, command: str, status: int = 0) -> str:
        """Run a command in the bundle's folder; checks its exit status and returns its output."""
        done = subprocess.run(
            [self.docker.program, "exec", "-w", "/root/qa-onnx", self.id, "sh", "-c", command],
            capture_output=True,
            text=True,
        )
        if done.returncode != status:
            journal = self.docker("exec", self.id, "journalctl", "-u", "qa-onnx", "-n", "20", "--no-pager")
            pytest.fail(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{journal}")
        return done.stdout + done.stderr

    def info(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = json.loads(self("curl -sf http://127.0.0.1:8000/info"))
        return found


@pytest.fixture(scope="module")
def machine(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    bundle = tmp_path_factory.mktemp("bundle") / "qa-onnx.tar"
    folder = str(ROOT / "tests/docker/systemd")
    try:
        docker("build", "--network", "host", "-q", "-t", "qa-test-systemd", folder)
        python = docker(
            "run", "--rm", "qa-test-systemd", "python3", "-c", "import sys; print(sys.version_info[:2])"
        )
    except AssertionError as error:
        pytest.skip(f"the image with systemd cannot be built: {error}")
    wanted = shutil.which("python3.{}".format(re.findall(r"\d+", python)[1])) or "python3"
    made = subprocess.run(
        [ROOT / "deploy/bundle.sh", "--no-compiler", bundle],
        env={"PATH": "/usr/bin:/bin", "PYTHON": wanted},
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"the wheels are not available: {made.stderr[-500:]}")
    name = docker(
        *(
            "run",
            "-d",
            "--network",
            "none",
            "--cgroupns",
            "private",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
        ),
        *(word for capability in CAPABILITIES for word in ("--cap-add", capability)),
        *(word for option in UNCONFINED for word in ("--security-opt", option)),
        "qa-test-systemd",
    )
    machine = Machine(docker, name)
    try:
        with bundle.open("rb") as file:
            unpack = [docker.program, "exec", "-i", name, "tar", "-C", "/root", "-xf", "-"]
            subprocess.run(unpack, stdin=file, check=True)
        state = ""
        for _ in range(60):
            state = docker("exec", name, "systemctl", "is-system-running", check=False)
            if state in ("running", "degraded"):
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"systemd does not start here: {state}")
        yield machine
    finally:
        docker("rm", "-f", name, check=False)


def test_installs_without_a_network_and_answers(machine: Machine) -> None:
    machine("! curl -s -m 3 http://192.0.2.1/")
    assert "is running" in machine(INSTALL)
    answer = machine(
        f"curl -sf -H 'Content-Type: application/json' -d '{QUESTION}' http://127.0.0.1:8000/predict"
    )
    assert json.loads(answer)["answer"] == "Amelia Hart"
    machine("systemctl is-enabled qa-onnx")


def test_runs_unprivileged_without_write_access(machine: Machine) -> None:
    user = machine("ps -o user= -p $(systemctl show -p MainPID --value qa-onnx)").strip()
    assert user not in ("root", "0")
    status = machine("cat /proc/$(systemctl show -p MainPID --value qa-onnx)/status")
    assert "NoNewPrivs:\t1" in status
    assert re.search(r"CapBnd:\t0+\n", status)
    writable = machine(
        "nsenter -t $(systemctl show -p MainPID --value qa-onnx) -m sh -c "
        "'for d in / /opt/qa-onnx /etc /usr /var; do touch $d/x 2>/dev/null && echo $d; done; true'"
    )
    assert writable == ""


def test_is_hardened(machine: Machine) -> None:
    table = machine("systemd-analyze security --no-pager qa-onnx.service")
    (exposure,) = re.findall(r"Overall exposure level.*: ([\d.]+)", table)
    print(f"\nsystemd-analyze security: {exposure}")
    assert float(exposure) < 1.5  # rated OK by systemd; a unit without hardening has 9.6


def test_limits_are_set(machine: Machine) -> None:
    limits = machine("systemctl show qa-onnx -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax")
    assert set(limits.split()) == {"MemoryMax=1073741824", "CPUQuotaPerSecUSec=2s", "TasksMax=2048"}


def test_an_upgrade_loses_no_request(machine: Machine) -> None:
    machine("cp -r models/default /root/new")
    machine(
        "python3 -c \"import json; name = '/root/new/manifest.json'; facts = json.load(open(name));"
        " json.dump(facts | {'label': 'new'}, open(name, 'w'))\""
    )
    before = machine.info()["model"]
    machine("rm -f /tmp/stop; cat > /tmp/load.py <<'X'\n" + LOAD + "X\n")
    machine(f"for i in 1 2 3 4; do python3 /tmp/load.py '{QUESTION}' >/dev/null 2>&1 & done; sleep 1")
    assert "answers with" in machine("deploy/systemd/upgrade.sh /root/new")
    assert machine.info()["model"]["label"] == "new"
    assert "answers with" in machine("deploy/systemd/upgrade.sh --back")
    assert machine.info()["model"] == before
    statuses = json.loads(machine("touch /tmp/stop; sleep 2; cat /tmp/statuses"))
    assert set(statuses) == {"200"}


def test_a_corrupt_model_is_rejected(machine: Machine) -> None:
    machine("rm -rf /root/bad; cp -r models/default /root/bad; printf x >> /root/bad/model.onnx.data")
    before = machine("readlink /opt/qa-onnx/model")
    assert "model.onnx.data" in machine("deploy/systemd/upgrade.sh /root/bad", status=2)
    assert machine("readlink /opt/qa-onnx/model") == before
    machine("curl -sf http://127.0.0.1:8000/health/ready")


def test_nginx_terminates_tls_for_a_unix_socket(machine: Machine) -> None:
    assert "is running" in machine(INSTALL + " --unix-socket")
    machine("! curl -s -m 3 http://127.0.0.1:8000/health/live")
    machine(
        "mkdir -p /etc/ssl/qa-onnx && cd /etc/ssl/qa-onnx && openssl req -x509 -newkey rsa:2048 -nodes"
        " -days 2 -subj /CN=qa.example.org -keyout privkey.pem -out fullchain.pem 2>/dev/null"
    )
    machine("cp deploy/nginx/qa-onnx.conf /etc/nginx/conf.d/ && /usr/sbin/nginx -t && systemctl start nginx")
    curl = "curl -s --cacert /etc/ssl/qa-onnx/fullchain.pem --resolve qa.example.org:443:127.0.0.1"
    ask = f"{curl} -H 'Content-Type: application/json' -d '{QUESTION}'"
    assert json.loads(machine(f"{ask} https://qa.example.org/predict"))["answer"] == "Amelia Hart"
    code = "-o /dev/null -w '%{http_code}'"
    assert machine(f"curl -s {code} -H 'Host: qa.example.org' http://127.0.0.1/predict") == "308"
    assert machine(f"{curl} {code} https://qa.example.org/metrics") == "200"  # from this machine
    machine("head -c 2500000 /dev/zero > /tmp/large; head -c 4000000 /dev/zero > /tmp/larger")
    # First the service's error response, then nginx's limit.
    large = machine(
        f"{curl} -H 'Content-Type: application/json' --data-binary @/tmp/large https://qa.example.org/predict"
    )
    assert json.loads(large)["error"]["code"]
    assert machine(f"{curl} {code} --data-binary @/tmp/larger https://qa.example.org/predict") == "413"
    many = machine(f"{curl} {code}'\\n' 'https://qa.example.org/health/live?[1-200]' | sort | uniq -c")
    assert {"200", "429"} == set(re.findall(r"\b(?:200|429|50\d)\b", many.split("\n", 1)[0] + many))
    exposure = re.findall(
        r"level.*: ([\d.]+)", machine("systemd-analyze security --no-pager qa-onnx.service")
    )
    print(f"\nsystemd-analyze security, unix socket: {exposure[0]}")


def test_keys_are_read_as_a_credential(machine: Machine) -> None:
    unit = (
        "[Service]\\nType=oneshot\\nDynamicUser=yes\\nLoadCredential=k:/etc/hostname\\n"
        "ExecStart=/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/k'\\n"
    )
    bare = (
        f'printf "{unit}" > /etc/systemd/system/bare.service; systemctl daemon-reload; systemctl start bare'
    )
    if "failed" in machine(f"{bare} 2>&1 || echo failed".replace("$CRED", "\\$CRED")):
        pytest.skip("this kernel or engine does not support systemd's credentials")
    key = "k" * 40
    machine(
        f"umask 077; echo {key} > /etc/qa-onnx/api-keys; mkdir -p /etc/systemd/system/qa-onnx.service.d;"
        " cp deploy/systemd/api-keys.conf /etc/systemd/system/qa-onnx.service.d/;"
        " systemctl daemon-reload && systemctl restart qa-onnx"
    )
    curl = (
        "curl -s -o /dev/null -w '%{http_code}' --unix-socket /run/qa-onnx/qa.sock"
        " -H 'Content-Type: application/json'"
    )
    assert machine(f"{curl} -d '{QUESTION}' http://qa/predict") == "401"
    assert machine(f"{curl} -H 'Authorization: Bearer {key}' -d '{QUESTION}' http://qa/predict") == "200"


def test_uninstall_leaves_nothing(machine: Machine) -> None:
    machine("deploy/systemd/uninstall.sh --settings")
    machine("! ls -d /opt/qa-onnx /etc/qa-onnx /run/qa-onnx /etc/systemd/system/qa-onnx* 2>/dev/null")
    machine("! systemctl cat qa-onnx 2>/dev/null")
    assert machine("ls /dev/shm") == ""
