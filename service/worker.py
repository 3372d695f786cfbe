"""Owns a worker process: how it loads, reads from its connections, drains; knows no routes and no texts."""

import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any, Self

import msgspec
from gunicorn.http import errors
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from service import problems
from service.errors import NotHttp, QAError, TooSlow
from service.master import Master
from service.tracing import ID_HEADER, request_id

# Seconds without progress after which a client that sends or takes its message in parts is cut off.
_STALL_SECONDS = 10
# Seconds that a client has for its whole request, however steadily it sends.
_REQUEST_SECONDS = 60
# Seconds that a worker which is to stop goes on accepting connections that were under way.
_LAST_CALL_SECONDS = 0.2
# Seconds that loading may take without a sign of life: parts of it hold Python's lock. A tokenizer of 250,000
# pieces does for 2 s of a CPU, which is 40 s of a twentieth of one.
_LOADING_SECONDS = 3600
# Of a body that is not read, so that a client which is still sending it gets the reply instead of a reset.
_DRAINED_BYTES = 64 << 20
# First two bytes of a TLS connection: a handshake record of version 3.
_TLS_HELLO = b"\x16\x03"

# What gunicorn's parser refuses, by HTTP status; anything else of its kind is a 400.
_STATUS: dict[type[Exception], int] = {
    errors.ForbiddenProxyRequest: 403,
    errors.LimitRequestLine: 414,
    errors.ExpectationFailed: 417,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
}


class ClientSocket(socket.socket):
    """A client's connection, whose `recv` tells a slow client and a TLS handshake from a request."""

    due = 0.0  # time.monotonic by which the request must have arrived
    fresh = True  # nothing has come yet

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


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, in which a client that stalls holds up nobody but itself.

    gunicorn waits for stalled clients without limit, holds a thread for a connection on which nothing has
    come yet, and waits up to 2 s for clients to close their side in the event loop, where that delays every
    other connection; none of it has a setting.
    """

    def load_wsgi(self) -> None:
        """Load the model in a thread, so that the master sees this worker alive however long it takes.

        A worker that others can stand in for accepts connections once it has loaded. One that is alone tells
        its clients after a moment that it is loading.
        """
        loading = threading.Thread(target=self._load, daemon=True)
        self.wsgi = self.app.loading()
        loading.start()
        patience = time.monotonic() + self.app.patience
        while loading.is_alive() and time.monotonic() < patience:
            self.notify()
            loading.join(min(1.0, max(0.0, patience - time.monotonic())))
            if not self.alive or not self.is_parent_alive():
                sys.exit(0)
        if self.failure is not None:
            self._give_up()

    loaded = False
    failure: Exception | None = None  # why the model could not be loaded

    def notify(self) -> None:
        """Tell the master that this worker lives; while it loads, that it does not hang for long."""
        if self.loaded:
            super().notify()
        else:
            until = time.monotonic() + _LOADING_SECONDS
            os.utime(self.tmp.fileno(), (until, until))

    def _load(self) -> None:
        try:
            super().load_wsgi()  # puts the application that answers in place of the one that is loading
        except Exception as error:
            self.failure = error
            self.method_queue.defer(self._give_up)  # for when the event loop runs already
        else:
            self.loaded = True
            self.log.info("Loaded the model (pid: %s)", self.pid)
            self.app.loaded()

    def _give_up(self) -> None:
        """End the worker, and with it the server: another try would meet the same model."""
        if isinstance(self.failure, QAError):
            self.log.error("%s", self.failure.message)
            sys.exit(Master.APP_LOAD_ERROR)
        if self.failure is not None:
            self.log.error("%s", problems.places(self.failure))
        sys.exit(Master.WORKER_BOOT_ERROR)

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection to a thread once something has come over it."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock = ClientSocket.take_over(conn.sock)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: TConn) -> object:
        """Handle one request, in a thread; what gunicorn returns is False where the connection is to end."""
        conn.sock.expect_request()
        kept = super().handle(conn)
        if kept is False:
            with suppress(OSError):  # closed already
                # A plain socket: this one's `recv` refuses what comes after the request's time.
                rest = socket.socket(fileno=os.dup(conn.sock.fileno()))
                close_graceful(rest, max_drain=_DRAINED_BYTES)
                conn.sock.shutdown(socket.SHUT_RD)  # so that gunicorn's own wait ends at once
        return kept

    def handle_error(self, req: Any, client: socket.socket, addr: object, exc: Exception) -> None:
        """Tell a client why its request, or what should have been one, is not answered; and count that."""
        if isinstance(exc, QAError):
            reply = problems.reply(exc)
        elif isinstance(exc, errors.ParseException) and not isinstance(
            exc, (errors.InvalidResponseHeader, errors.ConfigurationProblem)
        ):
            reply = problems.refusal(_STATUS.get(type(exc), 400))
        else:
            reply = problems.unexpected(exc)
        self.app.metrics.unread(reply.status)
        self.app.metrics.refusal(msgspec.json.decode(reply.body)["error"]["code"])
        identity = request_id(None)
        self.log.info("Refused what is no request (status %d, id %s)", reply.status, identity)
        head = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            "Connection: close",
            f"{ID_HEADER}: {identity}",
            "Content-Type: application/json",
            f"Content-Length: {len(reply.body)}",
        ]
        with suppress(OSError):  # it may have gone
            client.sendall("\r\n".join([*head, "", ""]).encode("ascii") + reply.body)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Before the last stop, take every connection that the kernel has accepted for this process."""
        if not enabled and not self.alive:
            last_call = time.monotonic() + _LAST_CALL_SECONDS
            while time.monotonic() < last_call:
                for listener in self.sockets:
                    self._accept_all(listener)
                time.sleep(0.02)
        super().set_accept_enabled(enabled)

    def _accept_all(self, listener: socket.socket) -> None:
        accepted = -1
        while accepted != self.nr_conns:
            accepted = self.nr_conns
            self.accept(listener)

    def murder_pending(self) -> None:
        """Close connections on which nothing came in time; a worker that is to stop waits for none."""
        if not self.alive:
            soon = time.monotonic() + STOP_KEEPALIVE_LINGER
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, soon)
        super().murder_pending()
