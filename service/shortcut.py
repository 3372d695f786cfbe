"""Owns the short way of plain questions, from their connection to the reply; leaves all else to gunicorn."""

import re
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gunicorn.util import close_graceful, http_date
from gunicorn.workers.gthread import TConn, ThreadWorker

if TYPE_CHECKING:  # it loads ONNX Runtime, which starts threads, and this is imported before the fork
    from service.predict import Predictor
    from service.problems import Reply

# One question of the common kind: its head as RFC 9112 has it (no folded lines, no bare line feeds), to
# where the app's routes say questions go. What gunicorn would drop ("_" in names) or refuse (more fields,
# longer ones) it shall see.
_HEAD = re.compile(
    rb"POST /(?:predict)? HTTP/1\.1\r\n((?:[!#$%&'*+.^`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n){1,100})\r\n"
)
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
_MOST_HEAD_BYTES = 8190
_MOST_BYTES = 1 << 16
# Bodies that come in parts, wait for permission or are packed, connections that change: not plain.
_SPECIAL = {b"transfer-encoding", b"expect", b"content-encoding", b"upgrade", b"trailer"}
# gunicorn refuses schemes that contradict each other; of the headers that tell one, one is left.
_SPECIAL |= {b"x-forwarded-protocol", b"x-forwarded-ssl"}
_JSON = {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
# How long a thread stays with a connection that it has answered, and how many may at once.
_STAY_MILLISECONDS = 100
_MOST_STAYING = 8
# How long a client may keep a thread waiting for the rest of its request, or to take its reply.
_STALL_SECONDS = 10
# How long one refusal is sent to everybody, and how late a refused connection's time-out may be renewed. In
# an overload, what a refusal costs is missing at the answers.
_SAME_SECONDS = 0.1
_RENEW_SECONDS = 10.0


class ShortcutWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, which answers plain questions on kept-alive connections itself.

    Through gunicorn's parser, WSGI and Flask a question costs 640 calls of functions, whose code the
    model's weights have just driven out of the CPU's caches: at one client 0.6 ms on top of 9, at sixteen
    5% of all answers. Anything unusual is handed to gunicorn's parser and goes that way, to the same
    Predictor.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._stays = threading.Semaphore(_MOST_STAYING)
        self._logs_requests = self.cfg.accesslog is not None
        self._renew_below = self.cfg.keepalive - _RENEW_SECONDS
        self._refusal, self._refusal_until = b"", 0.0

    @property
    def _predictor(self) -> "Predictor":
        predictor: Predictor = self.wsgi.extensions["predictor"]
        return predictor

    def handle(self, conn: TConn) -> object:
        """Answer on this connection, and what is asked on it next where that comes at once."""
        conn.sock.setblocking(True)
        if not conn.initialized:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALL_SECONDS, 0))
        while True:
            kept = self._handle_one(conn)
            if kept is False:
                _end(conn.sock)
            if kept is not True or _pending(conn) or not self._asked_again(conn.sock):
                return kept

    def _handle_one(self, conn: TConn) -> object:
        """Whether the connection is kept, or what else gunicorn says of it."""
        question = self._plain_question(conn, wait=True)
        if question is None:
            return super().handle(conn)
        body, timeout = question
        return _write(conn.sock, _message(self._predictor.reply(lambda: body, timeout)))

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Called by the event loop; in an overload it refuses questions itself, at no thread's cost."""
        if not self._predictor.full or self._plain_question(conn, wait=False) is None:
            super().on_client_socket_readable(conn, client)
            return
        # Refused even where a place has come free since: nothing here may wait for the model.
        now = time.monotonic()
        if _write(client, self._refusal_at(now)):
            if conn.timeout - now < self._renew_below:
                self.keepalived_conns.remove(conn)  # they are kept in the order of their time-outs
                conn.set_timeout()
                self.keepalived_conns.append(conn)
        else:
            self.keepalived_conns.remove(conn)
            conn.timeout = 0.0  # the loop closes it next
            self.keepalived_conns.appendleft(conn)

    def _refusal_at(self, now: float) -> bytes:
        """What is written to a question that is refused now, and counted."""
        predictor = self._predictor
        if now >= self._refusal_until:
            self._refusal, self._refusal_until = _message(predictor.refusal()), now + _SAME_SECONDS
        predictor.metrics.refused()
        return self._refusal

    def _plain_question(self, conn: TConn, *, wait: bool) -> tuple[bytes, str | None] | None:
        """Read what came; where it is not one plain question, leave it in gunicorn's parser.

        Many clients send head and body apart: `wait` waits for the body.
        """
        # What the parser holds comes first, and may be the start of what arrives now. A log line per
        # request needs the request parsed; a reply while stopping or among too many connections ends its own.
        if (
            not conn.initialized
            or _pending(conn)
            or self._logs_requests
            or not self.alive
            or len(self.keepalived_conns) >= self.max_keepalived
        ):
            return None
        try:
            data = conn.sock.recv(_MOST_BYTES)
        except OSError:  # gunicorn finds out and closes
            return None
        head = plain_head(data)
        if head is not None and wait:
            data += _missing(conn.sock, head.end - len(data))
        question = None if head is None else head.question(data)
        if question is None or len(question[0]) > self.wsgi.config["MAX_CONTENT_LENGTH"]:
            conn.parser.unreader.unread(data)
            return None
        return question

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


@dataclass(frozen=True, slots=True)
class Head:
    """Where the body of a plain question begins and ends, and the text of its time-out."""

    begin: int
    end: int
    timeout: str | None

    def question(self, data: bytes) -> tuple[bytes, str | None] | None:
        """Body and time-out, where `data` is this question and no more."""
        return (data[self.begin :], self.timeout) if len(data) == self.end else None


def plain_head(data: bytes) -> Head | None:
    """The head that `data` begins with, where it leaves no doubt how to read it."""
    head = _HEAD.match(data)
    if head is None or head.end() > _MOST_HEAD_BYTES:
        return None
    lines = [line.partition(b":") for line in head[1].split(b"\r\n")[:-1]]
    headers = {name.lower(): value.strip(b" \t") for name, _, value in lines}
    if len(headers) < len(lines) or b"host" not in headers or not _SPECIAL.isdisjoint(headers):
        return None
    length, timeout = headers.get(b"content-length", b""), headers.get(b"x-request-timeout")
    if (
        not _LENGTH.fullmatch(length)
        or headers.get(b"content-type", b"").lower() not in _JSON
        or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
    ):
        return None
    end = head.end() + int(length)
    return Head(head.end(), end, None if timeout is None else timeout.decode("latin-1"))


def _missing(client: socket.socket, count: int) -> bytes:
    """The `count` bytes that a question lacks; less if they do not come, none of more than it may have."""
    data = b""
    with suppress(OSError):  # too slow: gunicorn finds out and closes
        while 0 < count <= _MOST_BYTES and (piece := client.recv(count)):
            data += piece
            count -= len(piece)
    return data


def _pending(conn: TConn) -> bool:
    """Whether gunicorn's parser holds bytes that it has read and not yet used."""
    return bool(conn.parser.unreader.buf.getvalue())


def _write(client: socket.socket, message: bytes) -> bool:
    """Whether all of it went out; if not, nothing may follow it on this connection."""
    try:
        client.sendall(message)
    except OSError:  # gone, or not reading
        return False
    return True


def _message(reply: "Reply") -> bytes:
    """A reply as it goes over the wire, on a connection that is kept."""
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


def _end(client: socket.socket) -> None:
    """Wait for the client to close, too, here in a thread: else gunicorn does, in the event loop."""
    with suppress(OSError):  # gone already
        close_graceful(client.dup())
        client.shutdown(socket.SHUT_RD)  # nothing is left to wait for
