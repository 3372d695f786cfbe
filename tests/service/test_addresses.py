"""Listening addresses: every form of QA_HOST and QA_PORT, systemd sockets, and the `health` command."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from service import address
from tests.service.conftest import MODEL, ROOT, Service, Start, environment
from tests.service.test_predict import ITEM
from tests.service.test_process import startup_error

PYTHON = ROOT / ".venv/bin/python"
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=os.environ.get("COUNT", "1"))
os.execv(sys.argv[2], sys.argv[2:])
"""


def health(*flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "service", "health", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(**settings),
    )


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "[::]", "::1", "[::1]"])  # noqa: S104
def test_every_form_of_host_is_served(start: Start, host: str) -> None:
    service = start(host=host)
    assert service.ask(ITEM).status == 200
    assert health("--host", host, "--port", str(service.port)).returncode == 0


@pytest.mark.parametrize("scheme", ["unix:", "unix://"])
def test_a_unix_socket_is_served(start: Start, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "qa.sock"
    for _ in range(2):  # the second start finds the socket file of the first, which was killed
        service = start(host=f"{scheme}{path}")
        assert service.ask(ITEM).status == 200
        assert health("--host", f"{scheme}{path}").returncode == 0
        service.process.kill()
        service.process.wait(60)
    service = start(host=f"{scheme}{path}")
    assert "in use" in startup_error(PYTHON, QA_MODEL=str(MODEL), QA_HOST=f"{scheme}{path}")
    assert service.ask(ITEM).status == 200
    assert service.stop() == 0
    assert not path.exists()


def test_it_stops_cleanly_if_its_socket_file_was_removed(start: Start, tmp_path: Path) -> None:
    service = start(host=f"unix:{tmp_path}/qa.sock")
    (tmp_path / "qa.sock").unlink()
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize(
    "host",
    [
        *("nobody.invalid", "10.255.255.1", "fe80::1%nowhere", "127.0.0.1:80", "a b", "", "x" * 70),
        *("http://localhost", "unix:/no/such/qa.sock", "unix:" + "x" * 200, "unix:", "unix://"),
    ],
)
def test_unusable_addresses_are_rejected_at_startup(runtime_python: Path, host: str) -> None:
    assert "QA_HOST" in startup_error(runtime_python, QA_MODEL=str(MODEL), QA_HOST=host)


def test_a_file_that_is_not_a_socket_is_kept(runtime_python: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    assert "QA_HOST" in startup_error(
        runtime_python, QA_MODEL=str(MODEL), QA_HOST=f"unix:{tmp_path}/precious"
    )
    assert (tmp_path / "precious").read_text() == "text"


def test_health_finds_the_service_of_its_environment(start: Start, free_port: int) -> None:
    """Like a container's health check, which has the image's variables but not the flags of `serve`."""
    settings = {"QA_HOST": "127.0.0.1", "QA_PORT": str(free_port)}
    assert health(**settings).returncode == 1
    service = start("--host", "localhost", **settings)  # the fixture passes --port 0
    assert service.port != free_port
    assert health(**settings).returncode == 0
    other = health(QA_HOST="127.0.0.1", QA_PORT=str(free_port - 1))
    assert other.returncode == 1
    assert str(free_port - 1) in other.stderr
    service.stop()
    assert health(**settings).returncode == 1


def test_health_uses_the_port_of_platforms(start: Start) -> None:
    service = start()
    assert health(PORT=str(service.port)).returncode == 0
    assert health(PORT="1", QA_PORT=str(service.port)).returncode == 0
    assert health(PORT="1").returncode == 1


def test_hosts_and_addresses_match() -> None:
    for host in ("::1", "[::1]", "127.0.0.1", "localhost"):
        listener = address.listen(host, 0)
        with listener:
            connection = address.connect(address.of(listener), timeout=5)
            connection.connect()
            connection.close()


def test_a_port_can_be_reused_at_once(start: Start) -> None:
    """Connections in TIME_WAIT do not block it."""
    first: Service = start()
    assert first.ask(ITEM).status == 200
    first.stop()
    listener = address.listen(first.host, first.port)
    listener.close()


@pytest.mark.parametrize("count", ["1", "3", "x", ""])
def test_invalid_systemd_sockets_are_rejected(count: str) -> None:
    """A pipe, a socket that does not listen, a closed descriptor, and invalid counts."""
    read, write = os.pipe()
    idle = socket.socket()
    passed = {"1": read, "3": idle.fileno()}.get(count, read)
    done = subprocess.run(
        [PYTHON, "-c", ACTIVATE, str(passed), PYTHON, "-m", "service", "serve", "--port", "0"],
        cwd=ROOT,
        env=environment(QA_MODEL=str(MODEL), COUNT=count),
        pass_fds=[passed],
        capture_output=True,
        text=True,
        timeout=60,
    )
    idle.close()
    os.close(read)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr.startswith("qa-onnx: LISTEN_FDS")
    assert done.stderr.count("\n") == 1


def test_an_abstract_unix_socket_has_a_usable_address() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0qa-onnx-test")
        listener.listen()
        connection = address.connect(address.of(listener), timeout=5)
        connection.connect()
        connection.close()


def test_a_systemd_socket_replaces_host_and_port(free_port: int) -> None:
    """As a systemd socket unit starts a service: with descriptor 3 and two variables."""
    settings = {"QA_HOST": "127.0.0.1", "QA_PORT": str(free_port)}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [PYTHON, "-c", ACTIVATE, str(listener.fileno()), PYTHON, "-m", "service", "serve"],
            cwd=ROOT,
            env=environment(QA_MODEL=str(MODEL), **settings),
            pass_fds=[listener.fileno()],
        )
        try:
            connection = address.connect(address.of(listener), timeout=60)
            connection.request("GET", "/health/live")
            assert connection.getresponse().status == 200
            connection.close()
            deadline = time.monotonic() + 60
            while health(**settings).returncode:  # until it finds the service
                assert time.monotonic() < deadline
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", free_port))
        finally:
            process.terminate()
            assert process.wait(60) == 0
