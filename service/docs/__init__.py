"""Owns /openapi.json and the web page at /docs that shows it, offline too; knows no other route."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from service import schemas
from service.static_files import HTML, read_folder, static_file

# Routes other than files, for the OpenAPI document: summary and content types.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "/docs": ("This document as a web page", (HTML,)),
    "/openapi.json": ("This document", ("application/json",)),
}


def register(app: Flask, document: Mapping[str, Any]) -> None:
    """Add the routes of the document and of its page, with relative URLs, so that any path prefix works."""
    files = {f"docs/{name}": file for name, file in read_folder(Path(__file__).parent).items()}
    files["docs"] = files.pop("docs/index.html")
    files["openapi.json"] = static_file("openapi.json", schemas.encode(document))
    for name, file in files.items():
        app.add_url_rule(f"/{name}", name.replace(".", "_"), file.respond)
