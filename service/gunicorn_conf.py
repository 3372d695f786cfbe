"""Owns how gunicorn runs the app: processes, threads, signals, log lines; knows no routes."""

import atexit
import os
import shutil
import socket
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.engine.artifact import Artifact
from service.settings import Settings

# Threads beyond those of requests that may wait for the model: they read, refuse the rest, and answer health
# checks.
_SPARE_THREADS = 16
# Seconds an idle connection is kept: longer than the 60 s idle time-out of common load balancers,
# so that the balancer, not this side, closes first and no request meets a closing socket.
_KEEPALIVE = 75
# Seconds without progress after which a client that sends or takes its message in parts is cut off.
_STALL_SECONDS = 10
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a heartbeat file, created unnamed by gunicorn


class Server(BaseApplication):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn started from code, so that Settings is injected instead of read again.

    The artifact is verified once, before anything forks. ONNX Runtime is imported in the workers only: it
    starts threads when it is imported, which a fork loses, and then aborts at exit.
    """

    def __init__(self, settings: Settings, artifact: Artifact) -> None:
        self.settings = settings
        self.artifact = artifact
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self.settings).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in each worker, after the fork."""
        from service.app import create_app  # its metrics want a folder that is named by then
        from service.engine.answering import QuestionAnswerer

        answerer = QuestionAnswerer.with_settings(self.artifact, self.settings, concurrent=True)
        return create_app(self.settings, answerer)


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's threaded worker, in which clients that stall or do not close hold up only their own thread.

    gunicorn waits for stalled clients without limit, and for up to 2 s for clients to close their side, the
    latter in the event loop, where it delays every other connection; neither has a setting.
    """

    def handle(self, conn: TConn) -> object:
        """Handle one request, in a thread; what gunicorn returns is False where the connection is to end."""
        if not conn.initialized:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALL_SECONDS, 0))
        kept = super().handle(conn)
        if kept is False:
            with suppress(OSError):  # closed already
                close_graceful(conn.sock.dup())
                conn.sock.shutdown(socket.SHUT_RD)  # so that gunicorn's own wait ends at once
        return kept


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's own settings for ours."""
    # An address with colons is IPv6 and needs brackets beside a port.
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "proc_name": "qa-onnx",
        "workers": settings.workers,
        "worker_class": Worker,
        "threads": settings.max_waiting + 1 + _SPARE_THREADS,
        "keepalive": _KEEPALIVE,
        "graceful_timeout": settings.drain_seconds,
        # Heartbeats on a disk that stalls would get healthy workers killed; a read-only container
        # has no other place for them.
        "worker_tmp_dir": str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None,
        **_figures_folder(),
        "control_socket_disable": True,  # it would need a writable home folder
        "loglevel": settings.log_level,
        "accesslog": "-" if settings.access_log else None,
        "when_ready": _announce,
        "pre_request": _notice_draining,
    }


def _figures_folder() -> dict[str, Any]:
    """Where the workers put their figures, so that whichever is asked can sum over them all.

    Without a place to write, each worker tells its own.
    """
    try:
        folder = mkdtemp(prefix="qa-onnx-", dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
    except OSError:
        return {}

    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # workers inherit this
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)

    def forget(_: Arbiter, worker: ThreadWorker) -> None:
        """What a worker counted stays; what it had under way is gone."""
        # Imported before the variable below is set, the library would keep figures to the process.
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid, folder)  # type: ignore[no-untyped-call] # its own

    return {
        "raw_env": [f"PROMETHEUS_MULTIPROC_DIR={folder}"],
        "child_exit": forget,
    }


def _announce(arbiter: Arbiter) -> None:
    server: Server = arbiter.app
    for listener in arbiter.LISTENERS:
        arbiter.log.info("Serving %s at %s", server.artifact.path, listener)


def _notice_draining(worker: ThreadWorker, request: object) -> None:
    """Once stopping, answer what arrives on open connections, but be ready no more."""
    if not worker.alive:
        worker.wsgi.config["DRAINING"] = True
