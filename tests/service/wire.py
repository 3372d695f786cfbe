"""Builds raw HTTP requests."""

import json

from tests.service.test_predict import ITEM

BODY = json.dumps(ITEM).encode()


def message(
    body: bytes = BODY,
    *more: str,
    line: str = "POST /predict HTTP/1.1",
    content_type: str = "application/json",
    length: str | None = None,
) -> bytes:
    """A well-formed request, except for the given parts."""
    size = f"Content-Length: {len(body)}" if length is None else length
    lines = [line, "Host: x", f"Content-Type: {content_type}", size, *more]
    return "".join(f"{text}\r\n" for text in lines if text).encode("latin-1") + b"\r\n" + body


QUESTION = message()
