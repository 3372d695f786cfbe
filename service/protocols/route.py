"""Owns the types of a protocol: routes, their documentation, calls, errors; knows no protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.parsed import ParsedRequest
from service.problems import Reply
from service.settings import Settings

JSON = "application/json"
MODEL_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Site:
    """The parts of the service that routes may use."""

    settings: Settings
    info: Callable[[], Mapping[str, Any]]
    metrics: Callable[[], bytes]
    check_ready: Callable[[], None]  # raises NotReady while the service starts or drains

    @property
    def model_name(self) -> str:
        """Name of the model in protocols that name models."""
        return self.settings.served_name

    @property
    def path_values(self) -> Mapping[str, str]:
        """The only valid values of the variable parts of paths."""
        return {"model": self.model_name, "version": MODEL_VERSION}


@dataclass(frozen=True, slots=True)
class Call:
    """The parts of an HTTP request that protocols read."""

    site: Site
    header: Callable[[str], str | None]  # by name, in any case
    path: Mapping[str, str]  # the variable parts of the route's path
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Documentation:
    """A route in the OpenAPI document.

    `answer` (of status 200) is a type for msgspec or a JSON Schema, `body` a type. `narrow` returns a schema
    of the body that is stricter than the type; it may change and extend the components, a dictionary of
    schemas by type name.
    """

    summary: str
    answer: Any
    body: Any = None
    description: str = ""
    answer_media: tuple[str, ...] = (JSON,)
    narrow: Callable[[dict[str, Any], Site], dict[str, Any]] | None = None
    example: Any = None  # a body


@dataclass(frozen=True, slots=True)
class QuestionRoute:
    """A POST route for questions, for bodies of the content types `media`, or of any if that is empty."""

    path: str  # with {names} for its variable parts
    read: Callable[[Call], ParsedRequest]
    documentation: Documentation
    media: tuple[str, ...] = (JSON,)


@dataclass(frozen=True, slots=True)
class InfoRoute:
    """A GET route for health, metadata or metrics."""

    path: str
    respond: Callable[[Call], Reply]
    documentation: Documentation
    may_fail: tuple[int, ...] = ()  # statuses
    public: bool = False  # needs no API key


@dataclass(frozen=True, slots=True)
class Protocol:
    """An API for questions over HTTP.

    `error` returns the body of an error from the reply in the native format and its decoded `error` object.
    `agents` are parts of the User-Agent of clients that use the routes of another protocol and expect the
    error format of this one.
    """

    name: str
    routes: Callable[[Site], tuple[QuestionRoute | InfoRoute, ...]]
    error: Callable[[Reply, Mapping[str, Any]], Any]
    error_schema: Any
    prefixes: tuple[str, ...] = ()  # of paths whose errors have this format even without a route
    agents: tuple[str, ...] = ()
