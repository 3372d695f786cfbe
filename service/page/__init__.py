"""Owns the web page at GET / and its static files; knows neither model nor answers."""

from pathlib import Path

from flask import Flask, Response, request

from service import __version__, schemas
from service.static_files import HTML, read_folder

# Routes other than files, for the OpenAPI document: summary and content types.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "/": ("The web page, or a list of paths as JSON", (HTML, "application/json"))
}


def register(app: Flask) -> None:
    """Add GET / and the page's files under /page/, with relative URLs, so that any path prefix works.

    GET / is the page for clients that name text/html in Accept, as browsers do; load balancers and scripts
    get a small JSON. These routes are public even if API keys are required: they contain no user data.
    """
    files = read_folder(Path(__file__).parent)
    paths = {"ask": "predict", "about": "info", "ready": "health/ready"}
    greeting = schemas.encode({"service": "qa-onnx", "version": __version__, "paths": paths})

    @app.get("/")
    def root() -> Response:
        accepted = request.accept_mimetypes
        if accepted.quality("text/html") > accepted.quality("application/json"):
            response = files["index.html"].respond()
        else:
            response = Response(greeting, content_type="application/json")
        response.vary.add("Accept")
        return response

    for name, file in files.items():
        app.add_url_rule(f"/page/{name}", f"page {name}".replace(".", "_"), file.respond)
