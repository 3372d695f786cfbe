"""Owns whether a connection can go on after a request, given how its body was read; knows no route."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# An unread rest of a body that is skipped at most, so that the connection can be kept.
_SKIPPED_BYTES = 1 << 15


class BodyReader:
    """gunicorn's reader of one request's body, which also records whether the body ended as it should.

    gunicorn decides on the connection's end only after the reply, which has said keep-alive by then: when a
    chunk is malformed, or when more is unread than it skips. Worse, it parses the unread chunks of a body at
    that time, and answers a malformed one with a second reply, which a proxy would take for that to the next
    request.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._reader = request.body.reader
        self._sized = isinstance(self._reader, LengthReader)
        self._ended = False  # a chunked body has been read to its end
        self._broken = False

    @classmethod
    def watch(cls, request: Request) -> None:
        """Put one in the place of the request's own reader."""
        request.body.reader = cls(request)

    def read(self, size: int) -> bytes:
        """As gunicorn's; raises what that does."""
        expected = min(size, self._reader.length) if self._sized else size
        try:
            data: bytes = self._reader.read(size)
        except Exception:
            self._broken = True
            raise
        if len(data) < expected:  # nothing more comes
            self._ended, self._broken = not self._sized, self._sized
        return data

    def decide(self) -> None:
        """Have the reply say that the connection ends, where what follows the body cannot be found."""
        unread = self._reader.length > _SKIPPED_BYTES if self._sized else not self._ended
        if self._broken or unread:
            self._request.force_close()


def end_unread(application: "WSGIApplication") -> "WSGIApplication":
    """WSGI middleware: decide on the connection when the reply begins."""

    def decided(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        reader: BodyReader = environment["wsgi.input"].reader

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            reader.decide()
            return start_response(status, headers, *error)

        return application(environment, start)

    return decided
