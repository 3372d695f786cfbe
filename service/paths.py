"""Owns the normalisation of request paths: prefix, trailing slash, OPTIONS *; knows no route."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Flask

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


_METHODS = "GET, HEAD, POST, OPTIONS"


def read_paths(app: Flask, root_path: str) -> None:
    """Make `app` accept paths with and without a trailing slash, and with and without the prefix `root_path`.

    OPTIONS * asks about the server as a whole and is answered here (RFC 9110, 9.3.7).

    Call it before adding routes. Requests through a proxy may have the prefix while an orchestrator's probes
    do not. There are no redirects, since clients do not follow them for POST.
    """
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.wsgi_app = _answer_asterisk(app.wsgi_app)  # type: ignore[assignment, method-assign] # as Flask documents
    prefix = root_path.rstrip("/")
    if prefix:
        app.wsgi_app = _strip(app.wsgi_app, prefix)  # type: ignore[assignment, method-assign] # as Flask documents


def _answer_asterisk(application: "WSGIApplication") -> "WSGIApplication":
    """WSGI middleware: proxies check with OPTIONS * whether the server responds, without a key."""

    def answered(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] != "OPTIONS" or environment.get("PATH_INFO") != "*":
            return application(environment, start_response)
        start_response("204 No Content", [("Allow", _METHODS)])
        return []

    return answered


def _strip(application: "WSGIApplication", prefix: str) -> "WSGIApplication":
    """WSGI middleware: the prefix moves from PATH_INFO to SCRIPT_NAME (PEP 3333)."""

    def stripped(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path: str = environment.get("PATH_INFO", "")
        if path == prefix or path.startswith(f"{prefix}/"):
            environment["SCRIPT_NAME"] = environment.get("SCRIPT_NAME", "") + prefix
            environment["PATH_INFO"] = path[len(prefix) :] or "/"
        return application(environment, start_response)

    return stripped
