"""Owns the page for people at GET /, files served as they are; knows neither model nor answers."""

from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from flask import Flask, Response, request

from service import __version__, schemas

_FOLDER = Path(__file__).parent
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "script.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "answer.js": "text/javascript; charset=utf-8",
    "examples.json": "application/json",
    "icon.svg": "image/svg+xml",
}
# Nothing inline, nothing from elsewhere, no frame around it; texts never become markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time, sent again only where it has changed
}


# What the OpenAPI document says of the routes here that are no files: a summary, and the content types.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "/": ("The page for people, or where to go from here", (_TYPES["index.html"], "application/json"))
}


def register(app: Flask) -> None:
    """Add GET / and the page's files under /page/, all by relative addresses, so that any prefix works.

    GET / is the page for those who accept HTML by name, as browsers do; load balancers and scripts get
    a small JSON. None of these routes takes or tells anything of a user's, so they may stay open where an API
    key guards the rest.
    """
    files = {name: (_FOLDER / name).read_bytes() for name in _TYPES}
    greeting = schemas.encode(
        {
            "service": "qa-onnx",
            "version": __version__,
            "paths": {"ask": "predict", "about": "info", "ready": "health/ready"},
        }
    )

    @app.get("/")
    def root() -> Response:
        accepted = request.accept_mimetypes
        if accepted.quality("text/html") > accepted.quality("application/json"):
            response = file("index.html")
        else:
            response = Response(greeting, content_type="application/json")
        response.vary.add("Accept")
        return response

    @app.get("/page/<any({}):name>".format(",".join(f'"{name}"' for name in _TYPES)))
    def file(name: str) -> Response:
        response = Response(files[name], HTTPStatus.OK, _HEADERS, content_type=_TYPES[name])
        response.set_etag(sha256(files[name]).hexdigest()[:16])
        response.make_conditional(request)  # changes it in place
        return response
