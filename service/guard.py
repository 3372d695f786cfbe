"""Owns access control: API keys and CORS; knows no route.

Sources: RFC 6750 (bearer tokens), the Fetch standard (CORS).
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import SettingsError, Unauthorized

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, b64token
# Beside those that every page may send: what this service and the protocols it speaks read.
_REQUEST_HEADERS = (
    "Authorization, Content-Type, X-Request-ID, X-Request-Timeout, traceparent, tracestate, "
    "Inference-Header-Content-Length, X-Use-Cache, X-Wait-For-Model"
)
_RESPONSE_HEADERS = "X-Request-ID, Server-Timing, Retry-After, Inference-Header-Content-Length"
_PREFLIGHT_MARK = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
    ("Access-Control-Max-Age", "7200"),  # seconds, the most that Chromium takes
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The API keys that are taken, as SHA-256 digests; without any, everybody may ask."""

    digests: tuple[bytes, ...] = ()

    def check(self, authorization: str | None) -> None:
        """Take an Authorization header, or raise Unauthorized, in a time that tells nothing of the keys."""
        if not self.digests:
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("Send an API key as Authorization: Bearer KEY.", presented=False)
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        # All are compared, so that the time does not tell which one it was either.
        if not sum([hmac.compare_digest(digest, known) for known in self.digests]):
            raise Unauthorized("The API key is not one that this service takes.", presented=True)


def read_keys(path: str) -> Keys:
    """The keys in a file, one a line, with empty lines and lines that begin with # between them.

    An empty `path` stands for no keys; a byte order mark is no part of the first one. Raises SettingsError,
    which never quotes the file.
    """
    if not path:
        return Keys()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise _bad(f"{path} is not UTF-8 text") from None
    digests = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not _TOKEN.fullmatch(key):
            raise _bad(f"line {number} of {path} is not a bearer token (letters, digits and ._~+/-)")
        digests.append(sha256(key.encode()).digest())
    if not digests:
        raise _bad(f"{path} has no key")
    return Keys(tuple(digests))


def allow_origins(application: "WSGIApplication", origins: str) -> "WSGIApplication":
    """WSGI middleware for CORS: allow requests from the comma-separated `origins`, or from all with *.

    It answers preflight requests, which browsers send without a key. Credentials are not allowed, since
    nothing depends on cookies; therefore * is safe: a page still needs a key.
    """
    if not origins:
        return application
    allowed = frozenset(origin.strip() for origin in origins.split(","))
    every = "*" in allowed

    def shared(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        origin = environment.get("HTTP_ORIGIN")
        more = [] if every else [("Vary", "Origin")]
        granted = origin is not None and (every or origin in allowed)
        if granted:
            more.append(("Access-Control-Allow-Origin", "*" if every else str(origin)))
            more.append(("Access-Control-Expose-Headers", _RESPONSE_HEADERS))
        if environment["REQUEST_METHOD"] == "OPTIONS" and _PREFLIGHT_MARK in environment:
            start_response("204 No Content", [*more, *(_PREFLIGHT if granted else ())])
            return []

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, *more], *error)

        return application(environment, start)

    return shared


def _bad(fault: str) -> SettingsError:
    return SettingsError(f"QA_API_KEYS_FILE (--api-keys-file): {fault}.", field="QA_API_KEYS_FILE")
