"""Owns the table from errors to HTTP statuses; knows no route and no user text."""

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

# Errors raised by the web framework and the web server.
_REFUSALS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read as HTTP with a JSON body."),
    403: ("forbidden", "This client is not allowed to send this request."),
    404: ("not_found", "There is nothing at this path: questions go to POST /predict."),
    405: ("method_not_allowed", "This path does not support this method."),
    413: ("too_large", "The request body exceeds the limit of this service (see /info)."),
    414: ("uri_too_long", "The request line exceeds the limit of this service."),
    415: ("unsupported_media_type", "Send the body as Content-Type: application/json."),
    417: ("expectation_failed", "The only supported expectation is Expect: 100-continue."),
    431: ("headers_too_large", "The request header exceeds the limits of this service."),
    501: ("unsupported_transfer_coding", "The only supported transfer coding is chunked."),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: status, body, and headers other than content type and length."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class UnexpectedError(QAError):
    """A bug of this project; the cause is in the log, never in the response."""

    code = "internal_error"


def reply(error: Exception, item: int | None = None) -> Reply:
    """The response to an error; overload and unreadiness have Retry-After.

    `item` is the index of the invalid item of a list. A QAError without a row in the table is a bug, too.
    """
    if isinstance(error, HTTPException):
        # RFC 9110: a 405 must name the methods allowed, a 415 the encodings accepted.
        kept = ("Allow", "Accept-Encoding", "Location")
        return refusal(error.code or 500, tuple(pair for pair in error.get_headers() if pair[0] in kept))
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
    """The response to an error that the framework or the server raised."""
    code, message = _REFUSALS.get(status, ("http_error", f"The request was refused ({status})."))
    problem = QAError(message)
    problem.code = code
    return Reply(status, schemas.encode(schemas.problem_body(problem)), headers)


def unexpected(error: BaseException) -> Reply:
    """The response to a bug. Its type and stack are logged, not its message, which may contain user text."""
    _log.error("%s", places(error))
    failure = UnexpectedError("The service failed on this request; the cause is in its log.")
    return Reply(500, schemas.encode(schemas.problem_body(failure)))


def places(error: BaseException) -> str:
    """An exception as its type and stack, without its message."""
    passed, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        passed.append(f"{code.co_filename}:{frame.tb_lineno} {code.co_name}")
        frame = frame.tb_next
    return f"{type(error).__name__} at " + " <- ".join(reversed(passed))
