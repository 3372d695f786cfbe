"""Owns the one table from failures to HTTP statuses; knows no route and no text of the user's."""

import logging
import math

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from service import schemas
from service.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    QAError,
)

STATUS: dict[type[QAError], int] = {
    schemas.InvalidJson: 400,
    InvalidInput: 422,
    Overloaded: 429,
    NotReady: 503,
    DeadlineExceeded: 504,
}

# What the web framework refuses by itself, in this project's words.
_FRAMEWORK: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read as HTTP with a JSON body."),
    404: ("not_found", "There is nothing at this path: questions go to POST /predict."),
    405: ("method_not_allowed", "This path does not take this method."),
    413: ("too_large", "The request body is larger than this service takes (see /info)."),
    415: ("unsupported_media_type", "Send the body as Content-Type: application/json."),
}

_log = logging.getLogger(__name__)


class UnexpectedError(QAError):
    """A bug of this project; the cause is in the log, never in the response."""

    code = "internal_error"


def respond(problem: QAError, status: int, item: int | None = None) -> Response:
    """An error response; overload and unreadiness say when to come back."""
    body = schemas.encode(schemas.problem_body(problem, item))
    response = Response(body, status, content_type="application/json")
    if isinstance(problem, Overloaded):
        response.headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    elif isinstance(problem, NotReady):
        response.headers["Retry-After"] = "1"
    return response


def status_of(problem: QAError) -> int:
    """HTTP status of a named failure; one without a row is a bug, hence 500."""
    return STATUS.get(type(problem), 500)


def install(app: Flask) -> None:
    """Make every failure of `app` leave as the same JSON shape."""

    @app.errorhandler(QAError)
    def named(problem: QAError) -> Response:
        return respond(problem, status_of(problem))

    @app.errorhandler(HTTPException)
    def framework(error: HTTPException) -> Response:
        status = error.code or 500
        code, message = _FRAMEWORK.get(status, ("http_error", f"The request was refused ({status})."))
        problem = QAError(message)
        problem.code = code
        response = respond(problem, status)
        if status == 405:  # RFC 9110: a 405 must name the methods allowed
            response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
        return response

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        # The traceback's code lines are ours; its message could quote the user, so only its type
        # is logged with the places it passed.
        _log.error("%s", _places(error))
        return respond(UnexpectedError("The service failed on this request; the cause is in its log."), 500)


def _places(error: BaseException) -> str:
    """An exception as its type and the lines it passed, without its message."""
    places, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename}:{frame.tb_lineno} {code.co_name}")
        frame = frame.tb_next
    return f"{type(error).__name__} at " + " <- ".join(reversed(places))
