"""Sources of settings, their precedence, and invalid values."""

import os
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings, clear_environment


def test_defaults() -> None:
    settings = Settings.from_env(env={"PATH": "/bin", "OTHER_PORT": "1"})
    assert settings == Settings()
    assert settings.model.parts[-2:] == ("models", "default")


def test_precedence_of_flag_environment_and_default() -> None:
    env = {"QA_PORT": "81", "QA_MODEL": "/environment"}
    settings = Settings.from_env({"port": "82", "host": None, "model": None}, env)
    assert (settings.port, settings.model, settings.host) == (82, Path("/environment"), "127.0.0.1")


@pytest.mark.parametrize("name", ["QA", "QA_MODEL", "QA_V2"])
def test_service_variables_of_kubernetes_and_docker_are_ignored(name: str) -> None:
    variables = {
        "PORT": "tcp://10.0.0.7:8000",
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.7",
        "PORT_53_UDP": "udp://10.0.0.7:53",
        "NAME": "/web/qa",
        "ENV_PATH": "/bin",
    }
    assert Settings.from_env(env={f"{name}_{end}": text for end, text in variables.items()}) == Settings()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("QA_PROT", "QA_PORT"),
        ("QA_SERVICE_PROT", None),
        ("QA_WORKER", "QA_WORKERS"),
        ("QA_MAX_BODY_BYTE", "QA_MAX_BODY_BYTES"),
        ("QA_port", "QA_PORT"),
        ("QA_ZZZ", None),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(variable: str, nearest: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env={variable: "1"})
    assert variable in caught.value.message
    assert (nearest or "QA_") in caught.value.message


def test_the_platforms_port_is_the_fallback() -> None:
    assert Settings.from_env(env={"PORT": "8080"}).port == 8080
    assert Settings.from_env(env={"PORT": "8080", "QA_PORT": "81"}).port == 81
    assert Settings.from_env(env={"PORT": "8080", "QA_PORT": "tcp://10.0.0.7:8000"}).port == 8080
    assert Settings.from_env({"port": "82"}, env={"PORT": "8080"}).port == 82
    assert Settings.from_env(env={"PORT": ""}).port == 8000


@pytest.mark.parametrize("text", ["many", "70000", "tcp://10.0.0.7:8000"])
def test_an_invalid_platform_port_names_the_variable_that_is_set(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^PORT stands in for QA_PORT \(--port\) is"):
        Settings.from_env(env={"PORT": text})
    with pytest.raises(SettingsError, match=r"^QA_PORT"):
        Settings.from_env(env={"PORT": "80", "QA_PORT": "many"})
    with pytest.raises(SettingsError, match=r"^QA_PORT"):
        Settings.from_env({"port": "many"}, env={"PORT": "80"})


def test_carriage_returns_of_an_env_file_are_stripped() -> None:
    env = {"QA_MODEL": "/model\r", "QA_HOST": "::\r", "QA_ACCESS_LOG": "1\r", "QA_LOG_FORMAT": "json\r"}
    settings = Settings.from_env(env=env | {"PORT": "81\r"})
    assert (settings.model, settings.host, settings.port) == (Path("/model"), "::", 81)
    assert (settings.access_log, settings.log_format) == (True, "json")


GUNICORN_VARIABLES = {
    "GUNICORN_PID": "garbage",
    "GUNICORN_FD": "3,4",
    "GUNICORN_CMD_ARGS": "--workers 3 'x",
    "WEB_CONCURRENCY": "auto",
    "FORWARDED_ALLOW_IPS": "garbage",
    "SCRIPT_NAME": "/elsewhere",
    "SENDFILE": "x",
}


@pytest.mark.parametrize("pid", ["", "x", "1", "999999999999"])
def test_variables_that_gunicorn_reads_are_removed(pid: str) -> None:
    env = GUNICORN_VARIABLES | {"LISTEN_PID": pid, "LISTEN_FDS": "x", "LISTEN_FDNAMES": "x", "PORT": "80"}
    clear_environment(env)
    assert env == {"PORT": "80"}
    clear_environment(env)  # none is set any more


def test_sockets_that_systemd_passes_to_this_process_are_kept() -> None:
    mine = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    env = GUNICORN_VARIABLES | mine
    clear_environment(env)
    assert env == mine
    with pytest.raises(SettingsError, match="LISTEN_FDS"):
        clear_environment(mine | {"LISTEN_FDS": "x"})


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_values_of_booleans(word: str) -> None:
    assert Settings.from_env(env={"QA_ACCESS_LOG": word}).access_log
    assert not Settings.from_env(env={"QA_ACCESS_LOG": "no"}).access_log


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QA_PORT", "many"),
        ("QA_PORT", "-1"),
        ("QA_PORT", "65536"),
        ("QA_PORT", ""),
        ("QA_MODEL", ""),
        ("QA_THREADS", "1.5"),
        ("QA_THREADS", "-1"),
        ("QA_THREADS", "1025"),
        ("QA_WORKERS", "0"),
        ("QA_WORKERS", "1000000"),
        ("QA_MAX_WAITING", "99999999999"),
        ("QA_MAX_BODY_BYTES", "9" * 5000),
        ("QA_DEADLINE_SECONDS", "1e300"),
        ("QA_DEADLINE_SECONDS", "inf"),
        ("QA_DRAIN_SECONDS", "99999999999999999999"),
        ("QA_DEADLINE_SECONDS", "0"),
        ("QA_DEADLINE_SECONDS", "nan"),
        ("QA_DEADLINE_SECONDS", "soon"),
        ("QA_ACCESS_LOG", "maybe"),
        ("QA_HOST", ""),
        ("QA_HOST", "a b"),
        ("QA_HOST", "unix:"),
        ("QA_MODEL", "/mod\udce8le"),
        ("QA_MODEL_NAME", "mod\udce8le"),
        ("QA_ROOT_PATH", "qa"),
        ("QA_ROOT_PATH", "/a b"),
        ("QA_LOG_LEVEL", "loud"),
        ("QA_PROT", "8000"),
        ("QA_MODEL_NAME", "a/b"),
        ("QA_VERTEX_PREDICT_ROUTE", "predict"),
        ("QA_VERTEX_HEALTH_ROUTE", "/<x>"),
    ],
)
def test_invalid_values_name_the_setting(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env={variable: value})
    assert caught.value.field == variable
    assert variable in caught.value.message
    assert "\n" not in caught.value.message
