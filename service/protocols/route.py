"""Owns what a protocol consists of: routes, what they read and give, errors; knows no protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.asked import Asked
from service.problems import Reply
from service.settings import Settings

JSON = "application/json"
MODEL_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Site:
    """What routes may know of the service they belong to."""

    settings: Settings
    info: Callable[[], Mapping[str, Any]]
    metrics: Callable[[], bytes]
    check_ready: Callable[[], None]  # raises NotReady while the service starts or drains

    @property
    def model_name(self) -> str:
        """The name under which protocols that name models know this one."""
        return self.settings.served_name

    @property
    def path_values(self) -> Mapping[str, str]:
        """What the variable parts of paths must be."""
        return {"model": self.model_name, "version": MODEL_VERSION}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, as far as protocols read it."""

    site: Site
    header: Callable[[str], str | None]  # by name, in any case
    path: Mapping[str, str]  # the variable parts of the route's path
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Documentation:
    """What the OpenAPI document says of a route beside its path.

    `answer` (of status 200) is a type for msgspec or a JSON Schema, `body` such a type. `narrow` gives the
    schema of the body where that type alone says too little; it may change and extend the components, a
    dictionary of schemas by type name.
    """

    summary: str
    answer: Any
    body: Any = None
    description: str = ""
    answer_media: tuple[str, ...] = (JSON,)
    narrow: Callable[[dict[str, Any], Site], dict[str, Any]] | None = None
    example: Any = None  # a body


@dataclass(frozen=True, slots=True)
class Question:
    """A POST route for questions, in bodies of the content types `media`, or of any where that is empty."""

    path: str  # with {names} for its variable parts
    read: Callable[[Call], Asked]
    documentation: Documentation
    media: tuple[str, ...] = (JSON,)


@dataclass(frozen=True, slots=True)
class Fact:
    """A GET route that tells something of the service."""

    path: str
    tell: Callable[[Call], Reply]
    documentation: Documentation
    may_fail: tuple[int, ...] = ()  # statuses
    open: bool = False  # to everybody, where API keys guard the rest


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of asking over HTTP.

    `error` gives the body of a failure from the reply in this project's own form and the decoded `error`
    object in that. `agents` are words of the User-Agent header of clients that use the routes of another
    protocol and expect errors in this one's form.
    """

    name: str
    routes: Callable[[Site], tuple[Question | Fact, ...]]
    error: Callable[[Reply, Mapping[str, Any]], Any]
    error_schema: Any
    prefixes: tuple[str, ...] = ()  # of paths that are this protocol's even where no route is
    agents: tuple[str, ...] = ()
