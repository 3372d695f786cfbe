"""API keys from a file that is reloaded at SIGHUP, and CORS."""

import os
import signal
import time
from pathlib import Path

import pytest

from service.errors import SettingsError, Unauthorized
from service.guard import Keys, read_keys
from service.settings import Settings
from tests.service.conftest import MODEL, Reply, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_process import startup_error

FIRST, SECOND, THIRD = "first-key.0123456789", "second_key~abc==", "third+key/9"
ORIGIN = "https://pages.example.org"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# of the web shop\n{FIRST}\n\n  {SECOND}\n")
    return file


@pytest.fixture(scope="module")
def guarded(start: Start, keys_file: Path) -> Service:
    return start(
        "--access-log",
        QA_API_KEYS_FILE=str(keys_file),
        QA_CORS_ORIGINS=f"{ORIGIN}, http://localhost:3000",
        QA_LOG_LEVEL="debug",
        QA_MAX_WAITING="0",
    )


def with_key(service: Service, key: str) -> Reply:
    return service.ask(ITEM, Authorization=f"Bearer {key}")


def test_an_api_key_is_required(guarded: Service) -> None:
    for key in (FIRST, SECOND):
        assert with_key(guarded, key).status == 200
    assert guarded.ask(ITEM, Authorization=f"bearer {FIRST}").status == 200  # schemes are case-insensitive
    for wrong in (FIRST[:-1], FIRST + "x", FIRST.upper(), "", "# of the web shop", "é"):
        reply = with_key(guarded, wrong)
        assert reply.status == 401
        assert reply.body["error"]["code"] == "unauthorized"
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="qa-onnx", error="invalid_token"'
    for header in ({}, {"Authorization": f"Basic {FIRST}"}, {"Authorization": FIRST}):
        reply = guarded.ask(ITEM, connection=None, **header)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="qa-onnx"'


def test_every_route_except_health_and_the_page_requires_a_key(guarded: Service) -> None:
    opened = {"/", "/docs", "/openapi.json", "/page/script.js", "/docs/script.js"}
    opened |= {"/health/live", "/health/ready", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}
    for path in opened:
        assert guarded.get(path).status == 200, path
    guarded_paths = {"/info", "/metrics", "/v2", f"/v2/models/{MODEL.name}", "/nothing", "/page/../info"}
    for path in guarded_paths:
        assert guarded.get(path).status == 401, path
    documented = guarded.get("/openapi.json").body["paths"]
    for path, methods in documented.items():
        for method in methods.keys() - {"parameters"}:
            filled = path.replace("{name}", MODEL.name).replace("{version}", "1")
            status = guarded.ask(None, method=method.upper(), path=filled).status
            health = method == "get" and (path in opened or path.endswith("/ready"))
            assert (status == 401) is not health, (method, path, status)


def test_errors_of_other_protocols_have_their_own_shape(guarded: Service) -> None:
    reply = guarded.ask({}, path="/invocations")
    assert reply.status == 401
    assert reply.body["code"] == 401
    assert "WWW-Authenticate" in reply.headers


def test_open_metrics_require_no_key(start: Start, keys_file: Path) -> None:
    service = start("--open-metrics", QA_API_KEYS_FILE=str(keys_file))
    assert service.get("/metrics").status == 200
    assert service.get("/info").status == 401


def test_keys_are_not_logged(guarded: Service) -> None:
    with_key(guarded, FIRST)
    with_key(guarded, "wrong-key-of-a-client")
    log = guarded.log.read_text()
    assert "POST /predict" in log
    for key in (FIRST, SECOND, "wrong-key-of-a-client"):
        assert key not in log


def test_keys_are_reloaded_at_sighup(start: Start, tmp_path: Path) -> None:
    def wait_for(accepted: str, refused: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if [with_key(service, key).status for key in (accepted, refused)] == [200, 401]:
                    return
            except OSError:
                pass  # the connection belonged to a worker that ended
            assert time.monotonic() < deadline, service.log.read_text()
            time.sleep(0.05)

    file = tmp_path / "keys"
    file.write_text(FIRST)
    service = start(QA_API_KEYS_FILE=str(file))
    wait_for(FIRST, SECOND)
    (before,) = service.workers()
    file.write_text(f"{SECOND}\n{THIRD}")
    assert with_key(service, SECOND).status == 401  # not yet
    os.kill(service.process.pid, signal.SIGHUP)
    wait_for(SECOND, FIRST)
    wait_for(THIRD, FIRST)
    file.write_text("two words\n")  # an invalid file does not change the keys
    os.kill(service.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while "line 1 of" not in service.log.read_text() or before in service.workers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wait_for(THIRD, FIRST)
    assert "two words" not in service.log.read_text()
    assert service.stop() == 0


def test_a_key_file_with_a_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(f"\ufeff{FIRST}\r\n\r\n# of the shop\r\n{SECOND}\r\n".encode())
    keys = read_keys(str(tmp_path / "keys"))
    for key in (FIRST, SECOND):
        keys.check(f"Bearer {key}")
    with pytest.raises(Unauthorized):
        keys.check("Bearer # of the shop")


@pytest.mark.parametrize("content", ["", "# none\n", "a key\n", "schlüssel\n"])
def test_a_file_without_valid_keys_prevents_the_startup(
    content: str, tmp_path: Path, runtime_python: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    message = startup_error(runtime_python, QA_MODEL=str(MODEL), QA_API_KEYS_FILE=str(file))
    assert str(file) in message
    assert "a key" not in message
    with pytest.raises(SettingsError):
        read_keys(str(tmp_path / "none"))


def test_no_authentication_without_a_key_file() -> None:
    Keys().check(None)
    with pytest.raises(Unauthorized):
        Keys((b"x" * 32,)).check(None)


def preflight(service: Service, origin: str, path: str = "/predict") -> Reply:
    return service.ask(
        None,
        method="OPTIONS",
        path=path,
        Origin=origin,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type,x-request-timeout",
    )


def test_allowed_origins(guarded: Service) -> None:
    for origin in (ORIGIN, "http://localhost:3000"):
        asked = preflight(guarded, origin)
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == origin
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        allowed = asked.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type", "x-request-timeout", "x-request-id"} <= set(allowed)
        reply = guarded.ask(ITEM, Origin=origin, Authorization=f"Bearer {FIRST}")
        assert reply.status == 200
        assert reply.headers["Access-Control-Allow-Origin"] == origin
        assert "Server-Timing" in reply.headers["Access-Control-Expose-Headers"]
        assert "Origin" in reply.headers.get_all("Vary", [])
    refused = guarded.ask(ITEM, Origin=ORIGIN)  # error responses are readable, too
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", ORIGIN + ".evil.example", ORIGIN.upper(), "null"])
def test_other_origins_are_not_allowed(guarded: Service, origin: str) -> None:
    for reply in (preflight(guarded, origin), guarded.ask(ITEM, Origin=origin)):
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert "Access-Control-Allow-Methods" not in reply.headers
        assert "Origin" in reply.headers.get_all("Vary", [])


def test_all_origins(start: Start, service: Service) -> None:
    every = start(QA_CORS_ORIGINS="*")
    assert preflight(every, "null").headers["Access-Control-Allow-Origin"] == "*"
    assert every.ask(ITEM, Origin=ORIGIN).headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in service.ask(ITEM, Origin=ORIGIN).headers  # none by default


@pytest.mark.parametrize(
    "origins", ["example.org", "https://example.org/", "https://a.example https://b.example"]
)
def test_invalid_origins_are_rejected(origins: str) -> None:
    with pytest.raises(SettingsError, match="QA_CORS_ORIGINS"):
        Settings(cors_origins=origins)
