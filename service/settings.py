"""Owns every setting of the service, its default and its limits; knows none of its users."""

import difflib
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from service.errors import SettingsError

PREFIX = "QA_"
_HERE = Path(__file__).resolve().parent
# Next to this package in a checkout and in an image; inside the package in an installed wheel.
_PLACES = (_HERE.parent / "models" / "default", _HERE / "default_model")
DEFAULT_MODEL = next((place for place in _PLACES if place.is_dir()), _PLACES[0])

_MEBIBYTE = 1 << 20
# The largest number of seconds or items that every part accepts; larger ones overflow in some of them.
_MOST = (1 << 31) - 1
# Variables of hosting platforms, used where the QA_ variable is absent; the first one that is set applies.
_PLATFORM_NAMES = {
    "port": ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT"),
    "vertex_predict_route": ("AIP_PREDICT_ROUTE",),
    "vertex_health_route": ("AIP_HEALTH_ROUTE",),
    "otlp_endpoint": ("OTEL_EXPORTER_OTLP_ENDPOINT",),
}
# What gunicorn reads beside the options that it is given: options of its own, the sockets of a gunicorn that
# replaces itself, a path prefix. Inherited from the process that started this one, or set by a buildpack,
# they would stop the start or change what is served.
_GUNICORN_NAMES = (
    "GUNICORN_CMD_ARGS",
    "GUNICORN_PID",
    "GUNICORN_FD",
    "WEB_CONCURRENCY",
    "FORWARDED_ALLOW_IPS",
    "SCRIPT_NAME",
    "SENDFILE",
)
# systemd's socket activation: the process that the sockets are meant for, and their number.
_SYSTEMD_NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
# Kubernetes sets variables with the upper-case name of each Service in every pod, Docker likewise for links;
# those of a Service "qa" or "qa-model" look like settings.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_VARIABLE = re.compile(
    r"QA_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|ENV_\w+)",
    re.ASCII,
)
_URL = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.ASCII)
# What browsers send as Origin: a scheme and a host, perhaps a port, no path.
_ORIGIN = re.compile(r"\s*(\*|null|[a-z][a-z0-9+.-]*://[^\s/,?#@]+)\s*")


def _setting(default: Any, text: str, *, least: float | None = None, most: float = _MOST) -> Any:
    """A field with its help text and, for numbers, the minimum and the maximum."""
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once at startup by `from_env`, then injected. Precedence: flag, QA_NAME, default.

    Counts are per worker process unless they say otherwise.
    """

    model: Path = _setting(DEFAULT_MODEL, "model folder written by 'python -m export'")
    host: str = _setting(
        "127.0.0.1", "address or name to listen on, or unix:PATH; 0.0.0.0 for every interface"
    )
    port: int = _setting(8000, "TCP port to listen on; 0 selects a free one", least=0, most=65535)
    workers: int = _setting(1, "worker processes; one is right for most machines", least=1, most=1024)
    threads: int = _setting(0, "CPU threads for inference; 0 uses every available CPU", least=0, most=1024)
    kernel: bool = _setting(True, "use the graph with the custom operator if the CPU supports it")
    token_budget: int = _setting(384, "maximum tokens per batch of an fp32 model", least=1)
    max_body_bytes: int = _setting(2 * _MEBIBYTE, "maximum size of a request body", least=1)
    max_items: int = _setting(128, "maximum number of questions per request", least=1)
    max_top_k: int = _setting(100, "maximum top_k", least=1)
    max_waiting: int = _setting(32, "maximum number of waiting requests; further ones get 429", least=0)
    max_waiting_tokens: int = _setting(262_144, "maximum tokens of waiting requests, likewise", least=1)
    deadline_seconds: float = _setting(30.0, "maximum time for one request; then 504", least=0.001)
    root_path: str = _setting("", "path prefix of every route, such as /qa, if a proxy does not strip it")
    drain_seconds: int = _setting(30, "time to finish running requests after SIGTERM", least=0)
    model_name: str = _setting("", "name in /v2/models/NAME; empty: name of the model folder")
    vertex_predict_route: str = _setting("", "path of Vertex AI predictions; empty disables it")
    vertex_health_route: str = _setting("", "path of Vertex AI health checks; empty disables it")
    api_keys_file: str = _setting("", "file of API keys, one per line; empty disables authentication")
    open_metrics: bool = _setting(False, "serve /metrics without an API key")
    cors_origins: str = _setting("", "allowed CORS origins, comma-separated; * for all")
    gzip_min_bytes: int = _setting(1024, "minimum size of a response body to compress with gzip", least=1)
    otlp_endpoint: str = _setting("", "base URL of an OTLP/HTTP trace receiver; empty disables tracing")
    log_format: str = _setting("text", "text, or json with one line per request")
    log_level: str = _setting("info", "debug, info, warning or error")
    access_log: bool = _setting(False, "log one line per request, without its texts")

    @classmethod
    def from_env(
        cls, flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
    ) -> Self:
        """Settings from `flags` (None values are absent flags), then `env`, then defaults.

        PORT, which platforms set, is the fallback for QA_PORT. Variables that Kubernetes and Docker set for
        services whose names begin with "qa" are ignored, and so is white space around a value, such as the
        carriage return of an env file from Windows. Raises SettingsError naming the variable for an unknown
        QA_ name, an invalid value and a value below its minimum.
        """
        env = os.environ if env is None else env
        names = {PREFIX + setting.name.upper(): setting.name for setting in fields(cls)}
        values: dict[str, object] = {}
        platform: dict[str, str] = {}  # by the QA_ variable, the one that stands in for it
        for name, variables in _PLATFORM_NAMES.items():
            for variable in reversed(variables):
                if text := env.get(variable, "").strip():
                    values[name], platform[PREFIX + name.upper()] = text, variable
        for variable, value in env.items():
            text = value.strip()
            if not variable.startswith(PREFIX) or _is_service_variable(variable, text):
                continue
            if variable not in names:
                raise SettingsError(_unknown(variable, names), field=variable)
            values[names[variable]] = text
            platform.pop(variable, None)
        for name, flag in (flags or {}).items():
            if flag is not None:
                values[name] = flag
                platform.pop(PREFIX + name.upper(), None)
        types = get_type_hints(cls)
        try:
            converted: dict[str, Any] = {name: _convert(name, types[name], values[name]) for name in values}
            return cls(**converted)
        except SettingsError as error:
            if error.field not in platform:
                raise
            named = platform[error.field]
            raise SettingsError(f"{named} stands in for {error.message}", field=error.field) from None

    @property
    def served_name(self) -> str:
        """Name of the model in the API, metrics and logs."""
        return self.model_name or self.model.resolve().name

    def __post_init__(self) -> None:
        for setting in fields(self):
            least, most = setting.metadata["least"], setting.metadata["most"]
            value = getattr(self, setting.name)
            if least is not None and not least <= value <= most:  # NaN is neither
                raise _bad(setting.name, value, f"a number from {least} to {most}")
        for name in ("vertex_predict_route", "vertex_health_route"):
            if not re.fullmatch(r"(/[^\s<>{}?#]*)?", getattr(self, name)):
                raise _bad(name, getattr(self, name), "a path that begins with /")
        if not re.fullmatch(r"[^\s/<>{}?#]*", self.model_name):
            raise _bad("model_name", self.model_name, "one part of a path")
        named = self.host.removeprefix("unix:").removeprefix("//")
        if not named or any(letter.isspace() for letter in self.host):
            raise _bad("host", self.host, "an address, a host name or unix:PATH")
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+/?", self.root_path, re.ASCII):
            raise _bad("root_path", self.root_path, "a path like /qa")
        if self.cors_origins and not all(map(_ORIGIN.fullmatch, self.cors_origins.split(","))):
            raise _bad("cors_origins", self.cors_origins, "origins like https://example.org, or *")
        if not re.fullmatch(r"(https?://[^\s/?#]+(/[^\s?#]*)?)?", self.otlp_endpoint):
            raise _bad("otlp_endpoint", self.otlp_endpoint, "a URL like http://localhost:4318")
        if self.log_format not in ("text", "json"):
            raise _bad("log_format", self.log_format, "text or json")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise _bad("log_level", self.log_level, "debug, info, warning or error")


def clear_environment(env: MutableMapping[str, str] | None = None) -> None:
    """Remove the variables that gunicorn would read beside `Settings`; call this before it is imported.

    Those of systemd's socket activation stay if they are meant for this process (sd_listen_fds(3)). Raises
    SettingsError if they are, and do not hold the number of sockets.
    """
    env = os.environ if env is None else env
    for name in _GUNICORN_NAMES:
        env.pop(name, None)
    if env.get("LISTEN_PID", "").strip() != str(os.getpid()):
        for name in _SYSTEMD_NAMES:
            env.pop(name, None)
    elif not re.fullmatch(r"\s*[0-9]{1,4}\s*", env.get("LISTEN_FDS", ""), re.ASCII):
        raise SettingsError(
            f"LISTEN_FDS is {env.get('LISTEN_FDS')!r} and must be the number of the sockets that systemd "
            "passes to this process (LISTEN_PID).",
            field="LISTEN_FDS",
        )


def _is_service_variable(variable: str, text: str) -> bool:
    """Whether a variable is not a setting but one that Kubernetes or Docker sets for a service."""
    return bool(
        _SERVICE_VARIABLE.fullmatch(variable)
        or (variable.endswith("_PORT") and _URL.fullmatch(text))
        or (variable.endswith("_NAME") and text.startswith("/"))
    )


def _unknown(variable: str, names: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(variable, names, n=1)
    if near:
        return f"{variable} is not a setting: did you mean {near[0]}?"
    return f"{variable} is not a setting: the settings are {', '.join(sorted(names))}."


def _convert(name: str, kind: type, value: object) -> object:
    if kind is bool and isinstance(value, str):
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if value.lower() not in words:
            raise _bad(name, value, "1 or 0")
        return words[value.lower()]
    if kind is Path and not str(value):
        raise _bad(name, value, "a folder")
    try:
        str(value).encode()  # bytes of another encoding arrive as lone surrogates (PEP 383)
        return kind(value)
    except (TypeError, ValueError):
        wanted = {int: "a whole number", float: "a number"}.get(kind, "text in UTF-8")
        raise _bad(name, value, wanted) from None


def _bad(name: str, value: object, wanted: str) -> SettingsError:
    variable = PREFIX + name.upper()
    return SettingsError(
        f"{variable} (--{name.replace('_', '-')}) is {str(value)!r} and must be {wanted}.",
        field=variable,
    )
