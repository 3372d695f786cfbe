"""Owns responses with static files: content types, security headers, revalidation; knows no page."""

from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from flask import Response, request

HTML = "text/html; charset=utf-8"
_TYPES = {
    ".html": HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
# No inline code, no other origin, no framing; text cannot become markup (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # revalidated by ETag at each use
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """The content of a file, its content type and its ETag."""

    data: bytes
    content_type: str
    tag: str

    def respond(self) -> Response:
        """The response to the current request; 304 if the client has this content."""
        response = Response(self.data, HTTPStatus.OK, _HEADERS, content_type=self.content_type)
        response.set_etag(self.tag)
        response.make_conditional(request)  # in place
        return response


def static_file(name: str, data: bytes) -> StaticFile:
    """`data` served as a file `name`, whose extension gives the content type."""
    return StaticFile(data, _TYPES[Path(name).suffix], sha256(data).hexdigest()[:16])


def read_folder(folder: Path) -> dict[str, StaticFile]:
    """The static files in a folder, by name; Python files are left out."""
    return {
        path.name: static_file(path.name, path.read_bytes())
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }
