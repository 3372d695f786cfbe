"""Owns the one table from failures to HTTP statuses; knows no route and no text of the user's."""

import logging
import math
from dataclasses import dataclass

from werkzeug.exceptions import HTTPException

from service import schemas
from service.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotHttp,
    NotReady,
    Overloaded,
    QAError,
    TooSlow,
    Unauthorized,
    UnknownModel,
)

STATUS: dict[type[QAError], int] = {
    schemas.InvalidJson: 400,
    NotHttp: 400,
    Unauthorized: 401,
    UnknownModel: 404,
    TooSlow: 408,
    InvalidInput: 422,
    Overloaded: 429,
    NotReady: 503,
    DeadlineExceeded: 504,
}

# What the web framework and the web server refuse by themselves, in this project's words.
_REFUSALS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read as HTTP with a JSON body."),
    403: ("forbidden", "This client may not send this request."),
    404: ("not_found", "There is nothing at this path: questions go to POST /predict."),
    405: ("method_not_allowed", "This path does not take this method."),
    413: ("too_large", "The request body is larger than this service takes (see /info)."),
    414: ("uri_too_long", "The request line is longer than this service takes."),
    415: ("unsupported_media_type", "Send the body as Content-Type: application/json."),
    417: ("expectation_failed", "The only expectation this service meets is Expect: 100-continue."),
    431: ("headers_too_large", "The request has more or longer header fields than this service takes."),
    501: ("unsupported_transfer_coding", "The only transfer coding this service reads is chunked."),
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
        # RFC 9110: a 405 must name the methods allowed, a 415 the encodings accepted.
        told = ("Allow", "Accept-Encoding", "Location")
        return refusal(error.code or 500, tuple(pair for pair in error.get_headers() if pair[0] in told))
    if not isinstance(error, QAError):
        return unexpected(error)
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded):
        headers = (("Retry-After", str(max(1, math.ceil(error.retry_after)))),)
    elif isinstance(error, NotReady):
        headers = (("Retry-After", "1"),)
    elif isinstance(error, Unauthorized):
        fault = ', error="invalid_token"' if error.presented else ""
        headers = (("WWW-Authenticate", f'Bearer realm="qa-onnx"{fault}'),)
    return Reply(STATUS.get(type(error), 500), schemas.encode(schemas.problem_body(error, item)), headers)


def refusal(status: int, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """What the framework or the server refuses by itself, told in the one shape of every failure."""
    code, message = _REFUSALS.get(status, ("http_error", f"The request was refused ({status})."))
    problem = QAError(message)
    problem.code = code
    return Reply(status, schemas.encode(schemas.problem_body(problem)), headers)


def unexpected(error: BaseException) -> Reply:
    """A bug: its type and the lines it passed go to the log, since its message could quote the user."""
    _log.error("%s", places(error))
    failure = UnexpectedError("The service failed on this request; the cause is in its log.")
    return Reply(500, schemas.encode(schemas.problem_body(failure)))


def places(error: BaseException) -> str:
    """An exception as its type and the lines it passed, without its message."""
    passed, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        passed.append(f"{code.co_filename}:{frame.tb_lineno} {code.co_name}")
        frame = frame.tb_next
    return f"{type(error).__name__} at " + " <- ".join(reversed(passed))
