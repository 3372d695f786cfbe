"""Owns the folder of a running service: its place, its files, its removal; knows no HTTP."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

from service.errors import QAError

_PREFIX = "qa-onnx-run-"
_ADDRESS_FILE = "address.json"
# Memory that heartbeats and figures need at the least.
_LEAST_BYTES = 1 << 18
# What one worker's figures take: prometheus_client's files by kind, and the size of each to begin with.
_KINDS = ("counter", "gauge_livemax", "gauge_livesum", "histogram")
_FIGURES_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service was asked to listen by its environment alone, and where it really does."""

    asked: str
    listening: str


class RunFolder:
    """A folder that lives as long as the service: heartbeats, figures and the address it listens on.

    It is locked by the master and its workers, so that the next start can tell and remove those of masters
    that were killed.
    """

    def __init__(self) -> None:
        """Make one in the first place that can hold it: memory before disk, since a disk that stalls would
        get healthy workers killed. Raises QAError, naming what was tried."""
        tried: list[str] = []
        for place in _places():
            try:
                self.path, self._lock = _make(place)
            except OSError as error:
                tried.append(f"{place} ({error.strerror})")
            else:
                break
        else:
            raise QAError(
                f"The service needs a folder to write to, of 256 kB or more; tried {', '.join(tried)}."
            )
        self._owner = os.getpid()
        self._address: Address | None = None
        for other in _of_all_services():
            with suppress(OSError):
                _is_dead(other, remove=True)

    def reserve_figures(self, number: int) -> None:
        """Take the room for the figures of worker `number`; raises OSError where there is none.

        A file that is mapped and gets its room only when written would end the process on a full disk.
        """
        for kind in _KINDS:
            with (self.path / f"{kind}_{number}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _FIGURES_BYTES)

    def announce(self, address: Address) -> None:
        """Tell `running` where this service listens."""
        self._address = address
        (self.path / _ADDRESS_FILE).write_text(json.dumps(asdict(address)), encoding="utf-8")

    def restore(self) -> bool:
        """Make the folder again if it has been removed, without what was in it; whether it had been.

        systemd does that in /dev/shm when the user logs out (RemoveIPC in logind.conf). Raises OSError.
        """
        if self.path.is_dir():
            return False
        self.path.mkdir(mode=0o700)
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(lock, self._lock, inheritable=False)
        os.close(lock)
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        if self._address:
            self.announce(self._address)
        return True

    def remove(self) -> None:
        """Remove it; does nothing in the workers, which inherit this object."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)


def running() -> list[Address]:
    """The addresses of this user's services that run on this machine, the latest first."""
    found = []
    for folder in _of_all_services():
        with suppress(OSError, ValueError, TypeError):
            file = folder / _ADDRESS_FILE
            if not _is_dead(folder):
                found.append((file.stat().st_mtime, Address(**json.loads(file.read_text(encoding="utf-8")))))
    return [address for _, address in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _places() -> Iterator[Path]:
    yield Path("/dev/shm")  # noqa: S108 - a folder of this user's alone is made in it
    with suppress(OSError):  # none of TMPDIR, /tmp, /var/tmp, /usr/tmp and the current folder can be written
        if (temporary := Path(tempfile.gettempdir())) != Path.cwd():  # which is no place for litter
            yield temporary
    yield Path("/tmp")  # noqa: S108 - as above; here to be named where it cannot be used
    with suppress(RuntimeError):  # this user has no home
        yield Path.home()


def _make(place: Path) -> tuple[Path, int]:
    """A new folder in `place`, and the descriptor that locks it."""
    while True:
        folder = Path(mkdtemp(prefix=_PREFIX, dir=place))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # no locks here: then nothing is ever taken for dead
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():  # else another start took it for dead before it was locked
            break
        os.close(lock)
    try:
        with (folder / "probe").open("wb") as probe:
            os.posix_fallocate(probe.fileno(), 0, _LEAST_BYTES)
        (folder / "probe").unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise
    return folder, lock


def _of_all_services() -> list[Path]:
    found = []
    for place in dict.fromkeys(_places()):
        with suppress(OSError):
            found += [f for f in place.glob(f"{_PREFIX}*") if f.is_dir() and f.stat().st_uid == os.geteuid()]
    return found


def _is_dead(folder: Path, *, remove: bool = False) -> bool:
    """Whether no process holds the lock of a folder; with `remove` it is removed under that lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
