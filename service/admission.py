"""Owns the refusal of requests before a thread is spent on them; knows gunicorn's connections, no model."""

import re
import socket

from flask import Response
from gunicorn.util import http_date
from gunicorn.workers.gthread import TConn, ThreadWorker

# Where questions go, as the app's routes say.
_QUESTIONS = (b"POST /predict HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n")
# A body that comes in parts, waits for permission or ends the connection is for a thread.
_SPECIAL = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nconnection: close")
_MOST_BYTES = 1 << 16


class AdmittingWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, which in an overload answers 429 from its event loop.

    A refusal through a thread costs half a millisecond of CPU, which at four times the load that
    saturates the model was a sixth of all answers.
    """

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """A kept-alive connection has a request: refuse it here, or leave it to a thread."""
        if not self._refused(client):
            super().on_client_socket_readable(conn, client)
            return
        conn.set_timeout()
        self.keepalived_conns.remove(conn)  # they are kept in the order of their time-outs
        self.keepalived_conns.append(conn)

    def _refused(self, client: socket.socket) -> bool:
        """Whether one whole question was read and refused; if not, nothing was read."""
        # A log line per request needs the request parsed.
        if not self.alive or self.cfg.accesslog or not self.wsgi.config["FULL"]():
            return False
        try:
            size = _whole_question(client.recv(_MOST_BYTES, socket.MSG_PEEK))
            if not size:
                return False
            client.recv(size)
            client.sendall(_message(self.wsgi.config["REFUSE"]()))
        except OSError:  # gone, or not reading: the thread finds out and closes
            return False
        return True


def _whole_question(data: bytes) -> int:
    """The bytes of the request, where `data` is one question from start to end; else 0."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith(_QUESTIONS):
        return 0
    head = data[: end + 2].lower()
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or any(special in head for special in _SPECIAL):
        return 0
    return len(data) if end + 4 + int(lengths[0]) == len(data) else 0


def _message(response: Response) -> bytes:
    headers = [f"{name}: {value}" for name, value in response.headers]
    lines = [f"HTTP/1.1 {response.status}", f"Date: {http_date()}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.get_data()
