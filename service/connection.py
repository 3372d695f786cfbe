"""Owns a client's connection: stall time-outs, detection of TLS handshakes; knows no other HTTP."""

import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from service.errors import NotHttp, TooSlow

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Seconds without progress after which a client that sends or takes its message in parts is cut off.
_STALL_SECONDS = 10
# Seconds that a client has for its whole request, however steadily it sends.
_REQUEST_SECONDS = 60
# First two bytes of a TLS connection: a handshake record of version 3.
_TLS_HELLO = b"\x16\x03"


class ClientSocket(socket.socket):
    """A client's connection, whose `recv` tells a slow client and a TLS handshake from a request."""

    due = 0.0  # time.monotonic by which the request must have arrived
    fresh = True  # nothing has come yet
    answered = False  # the reply to the request has begun

    @classmethod
    def take_over(cls, connection: socket.socket) -> Self:
        """The same connection; the object given is not usable any more."""
        taken = cls(fileno=connection.detach())
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            taken.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALL_SECONDS, 0))
        return taken

    def expect_request(self) -> None:
        """A request begins here."""
        self.due = time.monotonic() + _REQUEST_SECONDS
        self.answered = False

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        """As any socket's; replies are sent by this method alone."""
        self.answered = True
        super().sendall(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As any socket's; raises TooSlow where gunicorn would wait on, NotHttp for a TLS handshake."""
        if time.monotonic() > self.due:
            raise TooSlow("The request took too long to arrive.")
        try:
            data = super().recv(size, flags)
        except BlockingIOError:  # of a blocking socket: its own time-out passed
            raise TooSlow(f"The request paused for {_STALL_SECONDS} seconds.") from None
        fresh, self.fresh = self.fresh, False
        if fresh and data.startswith(_TLS_HELLO):
            raise NotHttp("This port speaks HTTP without TLS: use http:// or a proxy that ends TLS.")
        return data
