"""Where settings come from, who wins, and what is refused."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings


def test_defaults_need_nothing() -> None:
    settings = Settings.from_env(env={"PATH": "/bin", "OTHER_PORT": "1"})
    assert settings == Settings()
    assert settings.model.parts[-2:] == ("models", "default")


def test_flag_wins_over_environment_over_default() -> None:
    env = {"QA_PORT": "81", "QA_MODEL": "/environment"}
    settings = Settings.from_env({"port": "82", "host": None, "model": None}, env)
    assert (settings.port, settings.model, settings.host) == (82, Path("/environment"), "127.0.0.1")


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_switches_take_words(word: str) -> None:
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
        ("QA_WORKERS", "0"),
        ("QA_DEADLINE_SECONDS", "0"),
        ("QA_DEADLINE_SECONDS", "nan"),
        ("QA_DEADLINE_SECONDS", "soon"),
        ("QA_ACCESS_LOG", "maybe"),
        ("QA_LOG_LEVEL", "loud"),
        ("QA_PROT", "8000"),
    ],
)
def test_what_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env={variable: value})
    assert caught.value.field == variable
    assert variable in caught.value.message
    assert "\n" not in caught.value.message
