"""Owns the master process: how it starts workers, takes a new model, stops; knows no request."""

import ctypes
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from service.engine.artifact import load_artifact
from service.errors import QAError
from service.guard import read_keys
from service.restarts import Restarts

# Linux: <asm-generic/socket.h>, <linux/prctl.h>.
_SO_ATTACH_FILTER = 26
_PR_SET_PDEATHSIG = 1
# A classic BPF program over the TCP header: drop what opens a connection, let everything else pass.
_REFUSE_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass whole
    )
)
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Seconds that workers get once a second signal asks for haste.
_HASTE_SECONDS = 2.0
# How loading ended, as a worker reports it. The latter two are its exit status and, where it is the server's
# fate, that of the service: 2 is for whatever a user can put right.
LOADED, REFUSED, CRASHED = 0, 2, 3
# The main loop runs every second. Seconds without it that mean that all processes were suspended (docker
# pause, SIGSTOP).
_SUSPENDED_SECONDS = 5.0


class NotLoaded(Exception):
    """A worker that was to take over did not come up."""


class Master(Arbiter):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's master, which loses no connection when it stops and no service when it reloads."""

    # No exit status: `worker_ended` decides when the server ends. gunicorn would stop healthy workers, too.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    LISTENERS: list[Any]
    reloading = False
    ending = False  # it has been told to stop
    grace_until = 0.0  # time.monotonic until which no worker is taken for dead

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.restarts = Restarts()
        self.last_check = time.monotonic()  # of workers that hang

    def signal(self, number: int, frame: Any) -> None:
        """Queue a signal, as gunicorn does; one that ends the service must not wait for a reload to end."""
        self.ending = self.ending or number in _ENDS
        super().signal(number, frame)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """The pending signals: first those that end the service, last at most one reload."""
        came = super().wait_for_signals(timeout)
        others = [number for number in came if number not in (*_ENDS, signal.SIGHUP)]
        reloads = [signal.SIGHUP] if signal.SIGHUP in came else []
        return [*(number for number in came if number in _ENDS), *others, *reloads]

    def handle_usr2(self) -> None:
        """Refuse to start a second master beside this one: it could not listen, and SIGHUP is for models."""
        self.log.warning("SIGUSR2 does nothing: SIGHUP takes a new model, another version needs a restart")

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; before that, open no more connections.

        Closing a listening socket resets the connections that have not been accepted. So the kernel first
        drops packets that would open further ones; the workers accept the rest, then close. gunicorn's own
        method measures the drain time by the wall clock, which may be set meanwhile.
        """
        self.ending = True
        for listener in self.LISTENERS:
            if listener.family != socket.AF_UNIX:
                _refuse_connections(listener)
            with suppress(OSError):  # the file of a socket may have been removed
                sock.close_sockets([listener], unlink=not self.systemd)
        self.LISTENERS = []
        due = time.monotonic() + self.cfg.graceful_timeout
        again = 0.0
        while self.WORKERS and time.monotonic() < due:
            if graceful and self._hurried():
                graceful = False
                self.log.info("Stopping at once")
                due, again = time.monotonic() + _HASTE_SECONDS, 0.0
            if time.monotonic() >= again:  # repeatedly: a worker that has just been forked loses signals
                self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
                again = time.monotonic() + 1
            self.reap_workers()
            time.sleep(0.05)
        self.kill_workers(signal.SIGKILL)
        self.reap_workers()

    def _hurried(self) -> bool:
        """Whether a pending signal asks to stop at once."""
        return any(number in (signal.SIGINT, signal.SIGQUIT) for number in super().wait_for_signals(0.001))

    def reload(self) -> None:
        """Read the model folder and the API keys again: old workers answer until new ones have loaded.

        What cannot be used is logged, and nothing changes.
        """
        before = self.app.artifact, self.app.keys
        youngest = self.worker_age
        self.reloading = True
        try:
            self.app.artifact = load_artifact(before[0].path, verify=False)  # the workers do that
            self.app.keys = read_keys(self.app.settings.api_keys_file)
            super().reload()
        except QAError as error:
            self.app.artifact, self.app.keys = before
            self.log.error("Nothing is reloaded: %s", error.message)
        except (NotLoaded, OSError) as error:  # OSError: there is no memory or process for another worker
            self.app.artifact, self.app.keys = before
            fault = error.strerror if isinstance(error, OSError) else "see above"
            self.log.error("Nothing is reloaded: a worker could not load %s (%s)", before[0].path, fault)
            for pid, worker in list(self.WORKERS.items()):
                if worker.age > youngest:
                    self.kill_worker(pid, signal.SIGTERM)
        finally:
            self.reloading = False
            self.last_check = time.monotonic()  # a reload takes its time

    def spawn_worker(self) -> int:
        """Start a worker, where that may be tried; one that is to take over from another is waited for.

        Returns its process id, or 0. Raises NotLoaded or OSError during a reload; HaltServer, and as
        gunicorn's handlers do StopIteration, where the service is to stop.
        """
        if self.reloading:
            return self._replace()
        if not self.restarts.due:
            return 0
        try:
            return self._fork()
        except OSError as error:  # too little memory, too many processes or descriptors
            self.log.error("A worker cannot be started: %s", error.strerror)
            self._failed(None)
            return 0

    def _fork(self) -> int:
        """Start a worker with a pipe by which it reports how loading ended; its process id."""
        self._keep_folder()
        read, write = os.pipe()
        self.app.report_to = write
        try:
            # The worker does not return but raises SystemExit. Nothing may come in its way: what gunicorn
            # does about another exception would end the other workers and shut the listening sockets for all.
            pid = int(super().spawn_worker())
        except OSError:
            os.close(read)
            os.close(write)
            raise
        os.close(write)
        self.app.report_to = None
        os.set_blocking(read, False)
        self.WORKERS[pid].report = read
        self.last_check = time.monotonic()  # so do many workers
        return pid

    def _replace(self) -> int:
        """Start a worker and wait until it has loaded; its process id."""
        pid = self._fork()
        worker = self.WORKERS[pid]
        while not select.select([worker.report], [], [], 0.1)[0]:
            if self.ending:
                raise StopIteration
        if self._outcome(worker) != LOADED:
            os.waitpid(pid, 0)
            del self.WORKERS[pid]
            worker.tmp.close()
            self.cfg.child_exit(self, worker)
            raise NotLoaded
        return pid

    def worker_ended(self, worker: Any) -> None:
        """Decide what follows from the end of a worker; raises HaltServer where the service is to end."""
        outcome = self._outcome(worker)
        os.close(worker.report)
        if outcome != LOADED and not self.reloading and not self.ending:
            self._failed(outcome)

    def _failed(self, outcome: int | None) -> None:
        """Plan another attempt to start a worker. `outcome` is None for one that did not report any.

        A server without any loaded worker ends where an attempt would meet the same, so that an orchestrator
        sees it. Otherwise the workers that have loaded go on.
        """
        serving = any(self._outcome(other) == LOADED for other in self.WORKERS.values())
        wait = self.restarts.failed()
        if not serving and (outcome is not None or self.restarts.exhausted):
            raise HaltServer("No worker could load the model.", outcome or CRASHED)
        self.log.error("A worker ended before it had loaded the model: the next one starts in %d s", wait)

    def _outcome(self, worker: Any) -> int | None:
        """What a worker has reported of its loading; None where that is nothing (yet)."""
        if worker.outcome is None:
            with suppress(BlockingIOError):
                worker.outcome = next(iter(os.read(worker.report, 1)), None)
            if worker.outcome == LOADED:
                self.restarts.succeeded()
        return int(worker.outcome) if worker.outcome is not None else None

    def murder_workers(self) -> None:
        """Kill workers that hang; time in which all processes were suspended does not count."""
        now = time.monotonic()
        if now - self.last_check > _SUSPENDED_SECONDS:
            self.log.info(
                "This process was suspended for %d s; so may the workers have been", now - self.last_check
            )
            self.grace_until = now + self.timeout
        self.last_check = now
        if now >= self.grace_until:
            super().murder_workers()
        for worker in self.WORKERS.values():
            self._outcome(worker)
        with suppress(OSError):  # tried again in a second
            self._keep_folder()

    def _keep_folder(self) -> None:
        """Make the folder of the service again where it has been removed, and have workers that use it."""
        if self.app.folder.restore():
            self.log.warning("%s was removed: workers are replaced, figures begin anew", self.app.folder.path)
            self.signal(signal.SIGHUP, None)

    def reap_workers(self) -> None:
        """Forget workers that ended; raises StopIteration during a reload if the service is to stop."""
        super().reap_workers()
        if self.reloading and self.ending:
            raise StopIteration


def end_with_master() -> None:
    """Have the kernel end this worker with its master, even where that is killed; Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _refuse_connections(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_REFUSE_SYN)
    argument = struct.pack("HL", len(_REFUSE_SYN) // 8, ctypes.addressof(program))
    with suppress(OSError):  # another system than Linux: what is under way may be reset
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
