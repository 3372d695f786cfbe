"""Owns a request's id, its trace context and its record for logs, metrics and spans; knows no route.

Source: W3C Trace Context (https://www.w3.org/TR/trace-context/), version 00, and how it
parses later versions.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ID_HEADER = "X-Request-ID"
_ID = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")  # printable ASCII, at most 128
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span in a distributed trace; ids in lower-case hexadecimal digits."""

    trace_id: str  # 32 digits
    span_id: str  # 16 digits
    flags: int  # 8 bits, the lowest one: sampled
    state: str = ""  # the tracestate header, unmodified


@dataclass(frozen=True, slots=True)
class Work:
    """The work of the model for one request."""

    begun: float  # seconds of the monotonic clock, when its first stage began
    stages: Mapping[str, float]  # seconds, in the order of the stages
    questions: int
    tokens: int


@dataclass(slots=True)
class Record:
    """One HTTP request, without user text except for the id that the client chose."""

    id: str
    method: str
    trace: TraceContext | None  # the caller's span, later that of the request
    arrived: int  # nanoseconds since the epoch
    started: float  # the same moment, seconds of the monotonic clock
    route: str = ""  # the route pattern; empty for unknown paths
    status: int = 0
    seconds: float = 0.0  # until the response was ready to be sent
    code: str = ""  # of the failure
    work: Work | None = None


# The record of the request that this thread handles.
current: ContextVar[Record] = ContextVar("current")


def request_id(sent: str | None) -> str:
    """The client's id if it is printable ASCII of at most 128 characters, else a new one."""
    return sent if sent is not None and _ID.fullmatch(sent) else uuid4().hex


def parse_traceparent(header: str | None, state: str = "") -> TraceContext | None:
    """The caller's span; None for an absent or invalid header."""
    found = _TRACEPARENT.fullmatch(header) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16), state)


def keep_records(
    application: "WSGIApplication", sinks: Sequence[Callable[[Record], None]]
) -> "WSGIApplication":
    """WSGI middleware: create a record of each request, add its id to the response, and pass it to the sinks.

    The sinks are called before the response is sent, so that a client that has its response finds it counted.
    """

    def recorded(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        record = Record(
            request_id(environment.get("HTTP_X_REQUEST_ID")),
            environment["REQUEST_METHOD"],
            parse_traceparent(environment.get("HTTP_TRACEPARENT"), environment.get("HTTP_TRACESTATE", "")),
            time.time_ns(),
            time.monotonic(),
        )
        current.set(record)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            record.status = int(status[:3])
            return start_response(status, [*headers, (ID_HEADER, record.id)], *error)

        body = application(environment, start)
        record.seconds = time.monotonic() - record.started
        for sink in sinks:
            sink(record)
        return body

    return recorded
