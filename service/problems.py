"""Owns the one table from failures to HTTP statuses; knows no route and no text of the user's."""

import logging
import math
from dataclasses import dataclass

from werkzeug.exceptions import HTTPException

from service import schemas
from service.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    QAError,
    UnknownModel,
)

STATUS: dict[type[QAError], int] = {
    schemas.InvalidJson: 400,
    UnknownModel: 404,
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered: a status, a body, and headers beside its type and length."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class UnexpectedError(QAError):
    """A bug of this project; the cause is in the log, never in the response."""

    code = "internal_error"


def reply(error: Exception, item: int | None = None) -> Reply:
    """The one shape of every failure; overload and unreadiness say when to come back.

    `item` is the one of a list at fault. A named failure without a row in the table is a bug, too.
    """
    if isinstance(error, HTTPException):
        return _framework(error)
    if not isinstance(error, QAError):
        # The traceback's code lines are ours; its message could quote the user, so only its type
        # is logged with the places it passed.
        _log.error("%s", _places(error))
        error = UnexpectedError("The service failed on this request; the cause is in its log.")
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded):
        headers = (("Retry-After", str(max(1, math.ceil(error.retry_after)))),)
    elif isinstance(error, NotReady):
        headers = (("Retry-After", "1"),)
    return Reply(STATUS.get(type(error), 500), schemas.encode(schemas.problem_body(error, item)), headers)


def _framework(error: HTTPException) -> Reply:
    status = error.code or 500
    code, message = _FRAMEWORK.get(status, ("http_error", f"The request was refused ({status})."))
    problem = QAError(message)
    problem.code = code
    # RFC 9110: a 405 must name the methods allowed
    allowed = tuple((name, value) for name, value in error.get_headers() if name == "Allow")
    return Reply(status, schemas.encode(schemas.problem_body(problem)), allowed)


def _places(error: BaseException) -> str:
    """An exception as its type and the lines it passed, without its message."""
    places, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename}:{frame.tb_lineno} {code.co_name}")
        frame = frame.tb_next
    return f"{type(error).__name__} at " + " <- ".join(reversed(places))
