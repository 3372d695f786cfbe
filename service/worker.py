"""Owns a worker process: how it loads, serves connections, drains; knows no routes and no texts."""

import errno
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any

import msgspec
from gunicorn.http import errors
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from service import problems
from service.connection import ClientSocket
from service.errors import QAError
from service.master import CRASHED, LOADED, REFUSED
from service.tracing import ID_HEADER, request_id

# Seconds that a worker which is to stop goes on accepting connections that were under way.
_LAST_CALL_SECONDS = 0.2
# Seconds that loading may take without a sign of life: parts of it hold Python's lock. A tokenizer of 250,000
# pieces does for 2 s of a CPU, which is 40 s of a twentieth of one.
_LOADING_SECONDS = 3600
# Of a body that is not read, so that a client which is still sending it gets the reply instead of a reset.
_DRAINED_BYTES = 64 << 20
# What accepting a connection fails with while descriptors or memory are short; seconds until the next try.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORTAGE_SECONDS = 0.05

# What gunicorn's parser refuses, by HTTP status; anything else of its kind is a 400.
_STATUS: dict[type[Exception], int] = {
    errors.ForbiddenProxyRequest: 403,
    errors.LimitRequestLine: 414,
    errors.ExpectationFailed: 417,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
}


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, in which a client that stalls holds up nobody but itself.

    gunicorn waits for stalled clients without limit, holds a thread for a connection on which nothing has
    come yet, and waits up to 2 s for clients to close their side in the event loop, where that delays every
    other connection; none of it has a setting.
    """

    def init_process(self) -> None:
        """Load and serve until the worker is to end.

        One that is to end while it loads does so at once: the interpreter's finalization would destroy what
        ONNX Runtime's threads are using, and abort.
        """
        try:
            super().init_process()
        except SystemExit:
            self._end_while_loading()
            raise
        self._end_while_loading()

    def _end_while_loading(self) -> None:
        if self.loading is not None and not self.loaded and self.failure is None:
            os._exit(0)

    def init_signals(self) -> None:
        """As gunicorn's; signals that are meant for the master do not end a worker.

        A command that finds processes by name sends them to all, and so does a terminal that is closed.
        """
        super().init_signals()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        """Load the model in a thread, so that the master sees this worker alive however long it takes.

        A worker that others can stand in for accepts connections once it has loaded. One that is alone tells
        its clients after a moment that it is loading.
        """
        self.wsgi = self.app.loading()
        self.tpool.submit(int)  # so that there is a thread for requests, whatever the system allows later
        self.loading = threading.Thread(target=self._load, daemon=True)
        self.loading.start()
        patience = time.monotonic() + self.app.patience
        while self.loading.is_alive() and time.monotonic() < patience:
            self.notify()
            self.loading.join(min(1.0, max(0.0, patience - time.monotonic())))
            if not self.alive or not self.is_parent_alive():
                sys.exit(0)
        if self.failure is not None:
            self._give_up()

    # The master's view of this worker: a descriptor to read how loading ended, and what was read.
    report = -1
    outcome: int | None = None

    loading: threading.Thread | None = None
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
            self.app.report(LOADED)

    def _give_up(self) -> None:
        """End the worker; the master decides whether the server ends, too."""
        status = CRASHED
        if isinstance(self.failure, QAError):
            self.log.error("%s", self.failure.message)
            status = REFUSED
        elif self.failure is not None:
            self.log.error("%s", problems.places(self.failure))
        self.app.report(status)
        sys.exit(status)

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection; while there is no descriptor for it, it waits in the kernel's queue."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            self.log.warning("A connection has to wait: %s", error.strerror)
            time.sleep(_SHORTAGE_SECONDS)

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection to a thread once something has come over it."""
        if conn.initialized or conn.data_ready:
            # RuntimeError: the system allows no further thread (pids limit). The job is queued by then, and
            # one of the threads that are there takes it; gunicorn's own callback would be lost.
            with suppress(RuntimeError):
                self.tpool.submit(self._handle_queued, conn)
            return
        conn.sock = ClientSocket.take_over(conn.sock)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _handle_queued(self, conn: TConn) -> None:
        """In a thread: handle a request; the event loop then does the rest."""
        handled: Future[object] = Future()
        try:
            handled.set_result(self.handle(conn))
        except BaseException as error:
            handled.set_exception(error)
        self.method_queue.defer(self.finish_request, conn, handled)

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

    def handle_error(self, req: Any, client: ClientSocket, addr: object, exc: Exception) -> None:
        """Tell a client why its request, or what should have been one, is not answered; and count that.

        A request that has its reply gets no second one, which a proxy would take for that to another request.
        """
        if client.answered:
            self.log.info("A connection ended after a reply (%s)", type(exc).__name__)
            return
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
