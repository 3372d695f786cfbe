"""Owns the short way of plain questions, from their connection to the reply; leaves all else to gunicorn."""

import re
import select
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from gunicorn.util import http_date
from gunicorn.workers.gthread import TConn, ThreadWorker

if TYPE_CHECKING:  # it loads ONNX Runtime, which starts threads, and this is imported before the fork
    from service.predict import Predictor
    from service.problems import Reply

# One question of the common kind, start to end: its head as RFC 9112 has it (no folded lines, no bare
# line feeds), to where the app's routes say questions go.
_HEAD = re.compile(
    rb"POST /(?:predict)? HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_MOST_BYTES = 1 << 16
# Bodies that come in parts, wait for permission or are packed, connections that end or change: not plain.
_SPECIAL = {b"transfer-encoding", b"expect", b"content-encoding", b"upgrade", b"trailer"}
# How long a thread stays with a connection that it has answered, and how many may at once.
_STAY_MILLISECONDS = 100
_MOST_STAYING = 8


class ShortcutWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, which answers plain questions on kept-alive connections itself.

    Through gunicorn's parser, WSGI and Flask a question costs 640 calls of functions, whose code the
    model's weights have just driven out of the CPU's caches: at one client 0.6 ms on top of 9, at sixteen
    5% of all answers. Anything unusual is left where it is and goes that way, to the same Predictor.
    """

    def init_process(self) -> None:
        self._stays = threading.Semaphore(_MOST_STAYING)
        super().init_process()

    def handle(self, conn: TConn) -> object:
        """Answer on this connection, and what is asked on it next where that comes at once."""
        conn.sock.setblocking(True)
        while True:
            if not (conn.initialized and self._answered(conn.sock)):
                kept: object = super().handle(conn)
                if kept is not True:
                    return kept
            if conn.parser.unreader.buf.getvalue() or not self._asked_again(conn.sock):
                return True

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Called by the event loop; in an overload it refuses questions itself, at no thread's cost."""
        predictor: Predictor = self.wsgi.extensions["predictor"]
        if not (predictor.full and self._answered(client)):
            super().on_client_socket_readable(conn, client)
            return
        conn.set_timeout()
        self.keepalived_conns.remove(conn)  # they are kept in the order of their time-outs
        self.keepalived_conns.append(conn)

    def _answered(self, client: socket.socket) -> bool:
        """Whether one plain question was there and answered, or refused; if not, nothing was read."""
        # A log line per request needs the request parsed; a reply while stopping ends the connection.
        if self.cfg.accesslog or not self.alive:
            return False
        predictor: Predictor = self.wsgi.extensions["predictor"]
        try:
            data = client.recv(_MOST_BYTES, socket.MSG_PEEK)
            found = _plain_question(data)
            if found is None:
                return False
            client.recv(len(data))
            body, timeout = found
            client.sendall(_message(predictor.reply(lambda: body, timeout)))
        except OSError:  # gone, or not reading: gunicorn finds out and closes
            return False
        return True

    def _asked_again(self, client: socket.socket) -> bool:
        """Wait a moment for a client in a hurry; those who think are for the event loop."""
        if not self.alive or not self._stays.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(client, select.POLLIN)
            return bool(poll.poll(_STAY_MILLISECONDS))
        finally:
            self._stays.release()


def _plain_question(data: bytes) -> tuple[bytes, str | None] | None:
    """Body and time-out of a request, where `data` is just that and leaves no doubt how to read it."""
    head = _HEAD.match(data)
    if head is None:
        return None
    lines = [line.partition(b":") for line in head[1].split(b"\r\n")[:-1]]
    headers = {name.lower(): value.strip(b" \t") for name, _, value in lines}
    if len(headers) < len(lines) or not _SPECIAL.isdisjoint(headers):
        return None
    body = data[head.end() :]
    if (
        headers.get(b"content-length") != b"%d" % len(body)
        or headers.get(b"content-type", b"").lower() not in _JSON
        or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
    ):
        return None
    timeout = headers.get(b"x-request-timeout")
    return body, None if timeout is None else timeout.decode("latin-1")


_JSON = {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}


def _message(reply: "Reply") -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"Date: {http_date()}",
        "Connection: keep-alive",
        "Content-Type: application/json",
        f"Content-Length: {len(reply.body)}",
        *(f"{name}: {value}" for name, value in reply.headers),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + reply.body
