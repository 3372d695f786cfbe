"""Owns how gunicorn runs the app: processes, threads, folders, hooks; knows no routes."""

import math
import os
import resource
from typing import TYPE_CHECKING, Any

from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http.message import Request
from prometheus_client import multiprocess, values

from service import address
from service.engine.artifact import Artifact, load_artifact
from service.engine.memory import keep_memory
from service.guard import read_keys
from service.json_log import logging_config
from service.master import Master, end_with_master
from service.metrics import Metrics
from service.runfolder import Address, RunFolder
from service.server_log import ACCESS_FORMAT, Log
from service.settings import Settings
from service.unread import BodyReader, end_unread
from service.worker import Worker

if TYPE_CHECKING:
    from flask import Flask

# Threads beyond those of requests that may wait for the model: they read, refuse the rest, and answer health
# checks. As many clients may send their requests byte by byte without anybody noticing; a thread that waits
# costs some 30 kB.
_SPARE_THREADS = 512
# Connections of one worker beside those that its threads work for, kept alive and idle.
_CONNECTIONS = 4096
# Descriptors of a worker that are no connections: files, pipes, listening sockets; with some to spare.
_OWN_DESCRIPTORS = 64
# Seconds an idle connection is kept: longer than the 60 s idle time-out of common load balancers,
# so that the balancer, not this side, closes first and no request meets a closing socket.
_KEEPALIVE = 75
# Seconds that a worker without others beside it loads before it tells clients so.
_PATIENCE = 1.0


class Server(BaseApplication):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn started from code, so that Settings is injected instead of read again.

    Its manifest is read before anything forks. What takes long happens in the workers, which answer health
    checks meanwhile: each verifies the files and loads them, as they are in the folder then. ONNX Runtime
    must be imported there: it starts threads when it is imported, which a fork loses, and aborts at exit.
    """

    report_to: int | None = None  # descriptor by which a worker tells the master how loading ended
    patience = math.inf
    metrics: Metrics  # of a worker

    def __init__(self, settings: Settings, artifact: Artifact, asked: str) -> None:
        """Listen at once; raises QAError where that, or the folder of the service, cannot be had.

        Where systemd's socket activation brings sockets, the service listens on those alone. `asked` is the
        address that the environment alone asks for: `health` looks the service up by it.
        """
        self.settings = settings
        self.artifact = artifact
        self.keys = read_keys(settings.api_keys_file)
        self.asked = asked
        if count := systemd.listen_fds(unset_environment=False):  # gunicorn finds them by itself
            self.listening = address.inherited(systemd.SD_LISTEN_FDS_START, count)
            self.bind = []
        else:
            listener = address.listen(settings.host, settings.port)
            self.listening = address.of(listener)
            self.bind = [f"fd://{listener.detach()}"]  # gunicorn takes it over
        self.folder = RunFolder()
        super().__init__()

    def load_config(self) -> None:
        for name, value in _options(self).items():
            self.cfg.set(name, value)

    def loading(self) -> Any:
        """The application of a worker until it has loaded; called first, after the fork."""
        from service.loading import create_loading_app

        keep_memory()  # before the thread that loads, which would get a heap of its own
        self.metrics = Metrics(self.folder.path)
        return _served(create_loading_app(self.settings, self.metrics, self.keys))

    def load(self) -> Any:
        """The application that answers."""
        from service.app import create_app
        from service.engine.answering import QuestionAnswerer

        artifact = load_artifact(self.artifact.path)
        answerer = QuestionAnswerer.with_settings(artifact, self.settings, concurrent=True)
        return _served(create_app(self.settings, answerer, self.metrics, self.keys))

    def report(self, outcome: int) -> None:
        """Tell the master how loading ended, once."""
        if self.report_to is not None:
            os.write(self.report_to, bytes([outcome]))
            os.close(self.report_to)
            self.report_to = None

    def run(self) -> None:
        try:
            Master(self).run()
        finally:
            self.folder.remove()


def _served(app: "Flask") -> "Flask":
    """The application as gunicorn's requests need it."""
    app.wsgi_app = end_unread(app.wsgi_app)  # type: ignore[assignment, method-assign] # as Flask documents
    return app


def _options(server: Server) -> dict[str, Any]:
    """gunicorn's own settings for ours."""
    settings = server.settings
    threads = settings.max_waiting + 1 + _SPARE_THREADS
    connections = _allow_descriptors(threads + _CONNECTIONS)
    return {
        "bind": server.bind,
        "proc_name": "qa-onnx",
        "workers": settings.workers,
        "worker_class": Worker,
        "worker_connections": connections,
        "threads": min(threads, max(1, connections // 2)),
        "keepalive": _KEEPALIVE,
        "graceful_timeout": settings.drain_seconds,
        "worker_tmp_dir": str(server.folder.path),
        "raw_env": [f"PROMETHEUS_MULTIPROC_DIR={server.folder.path}"],
        "control_socket_disable": True,  # it would need a writable home folder
        # No header says anything that is used here, so none may be a reason to refuse.
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        "logger_class": Log,
        "loglevel": settings.log_level,
        "accesslog": "-" if settings.access_log and settings.log_format == "text" else None,
        "access_log_format": ACCESS_FORMAT,
        "logconfig_dict": logging_config(settings.log_level) if settings.log_format == "json" else {},
        "when_ready": _announce,
        "pre_fork": _number,
        "post_fork": _begin,
        "child_exit": _forget,
        "pre_request": _before_request,
    }


def _allow_descriptors(connections: int) -> int:
    """Raise the limit of open descriptors for so many connections; the number that it leaves room for.

    The soft limit is often 1024 for the sake of programs that use select(2); others are to raise it.
    """
    wanted = connections + _OWN_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return min(connections, max(1, limit - _OWN_DESCRIPTORS))


def _announce(master: Arbiter) -> None:
    server: Server = master.app
    server.folder.announce(Address(server.asked, server.listening))
    for listener in master.LISTENERS:
        master.log.info("Serving %s at %s", server.artifact.path, listener)


def _number(master: Arbiter, worker: Worker) -> None:
    """Give a worker the smallest free number; the files of metrics are named after it.

    A worker continues the counters of the one that had its number before. So there are as few files as there
    were workers at one time, and no count is lost.
    """
    server: Server = master.app
    taken = {other.number for other in master.WORKERS.values()}
    worker.number = next(number for number in range(len(taken) + 1) if number not in taken)
    server.patience = math.inf if master.WORKERS else _PATIENCE
    worker.shares_figures = True
    try:
        server.folder.reserve_figures(worker.number)
    except OSError as error:
        worker.shares_figures = False
        master.log.warning("Worker %d keeps its figures to itself: %s", worker.number, error.strerror)


def _begin(master: Arbiter, worker: Worker) -> None:
    """In the new worker: end with the master, and write metrics to the files of its number."""
    end_with_master()
    values.ValueClass = values.MutexValue
    if worker.shares_figures:
        values.ValueClass = values.MultiProcessValue(lambda: worker.number)  # type: ignore[no-untyped-call] # its own


def _forget(master: Arbiter, worker: Worker) -> None:
    """Keep the counters of a worker that ended, drop its gauges, and let the master react."""
    master.worker_ended(worker)
    multiprocess.mark_process_dead(worker.number, str(master.app.folder.path))  # type: ignore[no-untyped-call] # its own


def _before_request(worker: Worker, request: Request) -> None:
    """Once stopping, answer what arrives on open connections, but be ready no more."""
    if not worker.alive:
        worker.wsgi.config["DRAINING"] = True
    BodyReader.watch(request)
