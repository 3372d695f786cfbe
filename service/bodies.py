"""Owns the body of a request, from the connection to UTF-8 bytes of JSON; knows no field of it."""

import codecs
import zlib

from flask import Request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge, UnsupportedMediaType

from service.errors import QAError
from service.schemas import InvalidJson

# zlib's window bits by Content-Encoding: 16 more for gzip's header, negative for none, which is what some
# clients send as deflate (RFC 9110, 8.4.1.2).
_WINDOW_BITS = {
    "gzip": (zlib.MAX_WBITS | 16,),
    "x-gzip": (zlib.MAX_WBITS | 16,),
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),
}
_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
# Members of one gzip body. Each costs a copy of what follows it: 2 MB of empty ones would take two minutes.
_MOST_MEMBERS = 128
_ACCEPTED = {"Accept-Encoding": "gzip, deflate"}


def read_body(request: Request, most: int, media: tuple[str, ...]) -> bytes:
    """The body of a request that says it is JSON or one of `media`, unpacked, without a byte order mark.

    Without `media` any type is taken. `most` bytes are taken, both as sent and unpacked. Raises
    UnsupportedMediaType for another content type or coding, UnsupportedTransferCoding for another than
    chunked, RequestEntityTooLarge, InvalidJson for UTF-16 and UTF-32, TooSlow for a client that stalls, and
    BadRequest for a body that ends early or cannot be unpacked.
    """
    if media and request.mimetype not in media and not request.is_json:
        raise UnsupportedMediaType
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise UnsupportedTransferCoding  # gunicorn passes on gzip before chunked, and does not unpack it
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "", *_WINDOW_BITS):
        raise UnsupportedCoding
    data = _receive(request, most)
    if coding in _WINDOW_BITS:
        data = _unpack(data, coding, most)
    return _utf8(data)


class UnsupportedTransferCoding(HTTPException):
    """A Transfer-Encoding that is not chunked alone."""

    code = 501


class UnsupportedCoding(UnsupportedMediaType):
    """A Content-Encoding that nobody here unpacks."""

    def get_headers(self, *args: object, **kwargs: object) -> list[tuple[str, str]]:
        """The response names the codings that are (RFC 9110, 15.5.16)."""
        return [*super().get_headers(), *_ACCEPTED.items()]


def _receive(request: Request, most: int) -> bytes:
    """All bytes of a body, from the server itself, since Werkzeug cuts a chunked body off without a word."""
    length = request.content_length
    if length is not None and length > most:
        raise RequestEntityTooLarge
    try:
        data = request.input_stream.read(most + 1 if length is None else length)
    except QAError:
        raise
    except Exception as error:  # the server's own: a broken chunk, a connection that ends
        raise BadRequest from error
    if len(data) > most:
        raise RequestEntityTooLarge
    if length is not None and len(data) < length:
        raise BadRequest
    return data


def _unpack(data: bytes, coding: str, most: int) -> bytes:
    """What gzip (of one or more members) or deflate packed; never more than `most` bytes in memory."""
    unpacked, members = b"", 0
    while data:
        members += 1
        if members > _MOST_MEMBERS:
            raise InvalidJson(f"The body has more than {_MOST_MEMBERS} gzip members: compress it as one.")
        for bits in _WINDOW_BITS[coding]:
            decoder = zlib.decompressobj(bits)
            try:
                member = decoder.decompress(data, most + 1 - len(unpacked))
            except zlib.error:
                continue
            break
        else:
            raise _broken()
        unpacked += member
        if len(unpacked) > most:
            raise RequestEntityTooLarge
        if not decoder.eof:
            raise _broken()
        data = decoder.unused_data
    return unpacked


def _utf8(data: bytes) -> bytes:
    if data.startswith(_UTF_16_OR_32) or 0 in data[:4]:  # JSON begins with ASCII, which has no zero byte
        raise InvalidJson("The body is not UTF-8 but UTF-16 or UTF-32: encode it as UTF-8.")
    return data.removeprefix(codecs.BOM_UTF8)


def _broken() -> InvalidJson:
    return InvalidJson("The body is not packed as its Content-Encoding says, or ends too early.")
