"""Owns /openapi.json and the page at /docs that shows it, offline too; knows no other route."""

from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

from service import schemas

_FOLDER = Path(__file__).parent
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "script.js": "text/javascript; charset=utf-8",
}
# Nothing inline, nothing from elsewhere, no frame around it; texts never become markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time, sent again only where it has changed
}


# What the document says of these routes: a summary, and the content types.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "/docs": ("This document as a page for people", (_TYPES["index.html"],)),
    "/openapi.json": ("This document", ("application/json",)),
}


def register(app: Flask, document: Mapping[str, Any]) -> None:
    """Add the routes of the document and of its page, whose addresses are relative: any path prefix works."""
    files = {f"docs/{name}": (_FOLDER / name).read_bytes() for name in _TYPES if name != "index.html"}
    files |= {"docs": (_FOLDER / "index.html").read_bytes(), "openapi.json": schemas.encode(document)}
    types = {f"docs/{name}": kind for name, kind in _TYPES.items()}
    types |= {"docs": _TYPES["index.html"], "openapi.json": "application/json"}

    def file(name: str) -> Response:
        response = Response(files[name], HTTPStatus.OK, _HEADERS, content_type=types[name])
        response.set_etag(sha256(files[name]).hexdigest()[:16])
        response.make_conditional(request)
        return response

    for name in files:
        app.add_url_rule(f"/{name}", name.replace(".", "_"), file, defaults={"name": name})
