"""Owns the master process: how it stops and takes a new model; knows neither requests nor answers."""

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


class NotLoaded(Exception):
    """A worker that was to take over did not come up."""


class Master(Arbiter):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's master, which loses no connection when it stops and no service when it reloads."""

    # The exit status of a worker that refuses its model, and so of the service: as for everything else that a
    # user can put right.
    APP_LOAD_ERROR = 2

    LISTENERS: list[Any]
    reloading = False
    ending = False  # it has been told to stop

    def signal(self, number: int, frame: Any) -> None:
        """Queue a signal, as gunicorn does; one that ends the service must not wait for a reload to end."""
        self.ending = self.ending or number in _ENDS
        super().signal(number, frame)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """The signals that came: those that end the service first, and reloads that piled up as one."""
        came = super().wait_for_signals(timeout)
        others = [number for number in came if number not in (*_ENDS, signal.SIGHUP)]
        reloads = [signal.SIGHUP] if signal.SIGHUP in came else []
        return [*(number for number in came if number in _ENDS), *others, *reloads]

    def handle_usr2(self) -> None:
        """Refuse to start a second master beside this one: it could not listen, and SIGHUP is for models."""
        self.log.warning("SIGUSR2 does nothing: SIGHUP takes a new model, another version needs a restart")

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; before that, open no more connections.

        A listening socket that is closed resets the connections that nobody has accepted. So the kernel is
        told first to drop what would open further ones; the workers accept the rest, then close. gunicorn's
        own method measures the time for that by the clock of the day, which may be set meanwhile.
        """
        for listener in self.LISTENERS:
            if listener.family != socket.AF_UNIX:
                _refuse_connections(listener)
        sock.close_sockets(self.LISTENERS, unlink=not self.systemd)
        self.LISTENERS = []
        due = time.monotonic() + self.cfg.graceful_timeout
        again = 0.0
        while self.WORKERS and time.monotonic() < due:
            if graceful and self._hurried():
                graceful = False
                self.log.info("Stopping at once")
                due, again = time.monotonic() + _HASTE_SECONDS, 0.0
            if time.monotonic() >= again:  # more than once, for a worker that has just begun does not hear it
                self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
                again = time.monotonic() + 1
            with suppress(HaltServer):  # a worker that could not load: it stops anyhow
                self.reap_workers()
            time.sleep(0.05)
        self.kill_workers(signal.SIGKILL)
        with suppress(HaltServer):
            self.reap_workers()

    def _hurried(self) -> bool:
        """Whether a signal came meanwhile that asks to stop at once."""
        return any(number in (signal.SIGINT, signal.SIGQUIT) for number in super().wait_for_signals(0.001))

    def reload(self) -> None:
        """Read the model folder and the API keys again: old workers answer until new ones have loaded.

        What cannot be used is told in the log, and nothing changes.
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

    def spawn_worker(self) -> int:
        """Start a worker; one that is to take over from another is waited for.

        Raises NotLoaded; and, as gunicorn's handlers do, StopIteration where the service is to stop.
        """
        if not self.reloading:
            return int(super().spawn_worker())
        read, write = os.pipe()
        self.app.tell_loaded = write
        # The worker does not return but raises SystemExit. Nothing may come in its way: what gunicorn does
        # about another exception would end the other workers and shut the listening sockets for all.
        pid = int(super().spawn_worker())
        os.close(write)
        self.app.tell_loaded = None
        try:
            while not select.select([read], [], [], 0.1)[0]:
                if self.ending:
                    raise StopIteration
            loaded = os.read(read, 1)  # nothing where the worker ended
        finally:
            os.close(read)
        if not loaded:
            os.waitpid(pid, 0)
            worker = self.WORKERS.pop(pid)
            worker.tmp.close()
            self.cfg.child_exit(self, worker)
            raise NotLoaded
        return pid

    def reap_workers(self) -> None:
        """Forget workers that ended; raises StopIteration where a reload waits for that and is to stop."""
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
