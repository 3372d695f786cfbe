"""Owns the master process: how it stops and takes a new model; knows neither requests nor answers."""

import ctypes
import os
import signal
import socket
import struct
from contextlib import suppress

from gunicorn.arbiter import Arbiter

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


class NotLoaded(Exception):
    """A worker that was to take over did not come up."""


class Master(Arbiter):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's master, which loses no connection when it stops and no service when it reloads."""

    reloading = False

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; before that, open no more connections.

        A listening socket that is closed resets the connections that nobody has accepted. So the kernel is
        told first to drop what would open further ones; the workers accept the rest, then close.
        """
        for listener in self.LISTENERS:
            if listener.family != socket.AF_UNIX:
                _refuse_connections(listener)
        super().stop(graceful)

    def reload(self) -> None:
        """Read the model folder and the API keys again: old workers answer until new ones have loaded.

        What cannot be used is told in the log, and nothing changes.
        """
        before = self.app.artifact, self.app.keys
        youngest = self.worker_age
        self.reloading = True
        try:
            self.app.artifact = load_artifact(before[0].path)
            self.app.keys = read_keys(self.app.settings.api_keys_file)
            super().reload()
        except QAError as error:
            self.app.artifact, self.app.keys = before
            self.log.error("Nothing is reloaded: %s", error.message)
        except NotLoaded:
            self.app.artifact, self.app.keys = before
            self.log.error("Nothing is reloaded: a worker could not load %s (see above)", before[0].path)
            for pid, worker in list(self.WORKERS.items()):
                if worker.age > youngest:
                    self.kill_worker(pid, signal.SIGTERM)
        finally:
            self.reloading = False

    def spawn_worker(self) -> int:
        """Start a worker; one that is to take over from another is waited for. Raises NotLoaded."""
        if not self.reloading:
            return int(super().spawn_worker())
        read, write = os.pipe()
        self.app.tell_loaded = write
        try:
            pid = int(super().spawn_worker())  # the worker does not return
        finally:
            os.close(write)
            self.app.tell_loaded = None
        loaded = os.read(read, 1)  # ends when the worker does
        os.close(read)
        if not loaded:
            os.waitpid(pid, 0)
            worker = self.WORKERS.pop(pid)
            worker.tmp.close()
            self.cfg.child_exit(self, worker)
            raise NotLoaded
        return pid


def end_with_master() -> None:
    """Have the kernel end this worker with its master, even where that is killed; Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _refuse_connections(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_REFUSE_SYN)
    argument = struct.pack("HL", len(_REFUSE_SYN) // 8, ctypes.addressof(program))
    with suppress(OSError):  # another system than Linux: what is under way may be reset
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
