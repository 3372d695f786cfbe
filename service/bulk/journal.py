"""Owns what a bulk run has done so far, on disk, whole after any crash; knows no rows and no model.

The file is one line of JSON that names the task, then a line per chunk: the CRC-32 of its outcomes as eight
hexadecimal digits, a space, the outcomes as a JSON array. A crash can leave the last lines torn; what
follows the last line that is whole and right is cut off when the run is continued.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.bulk.rows import Outcome, read_outcomes
from service.bulk.task import BadFile

# A power failure loses the work since the last fsync; a killed process loses none that was appended.
_FSYNC_SECONDS = 1.0


class Journal:
    """The outcomes of the first `rows` rows of one task; one process at a time has it open."""

    def __init__(self, path: Path, task: Mapping[str, Any], *, restart: bool) -> None:
        """Open or create; `restart` forgets what is there.

        Raises BadFile where another process has it, or where it is of another task, naming the first entry
        of `task` that differs.
        """
        self.path = path
        path.touch()
        self._file = path.open("r+b")
        try:
            self._lock()
            if restart:
                self._file.truncate(0)
            self.rows = self._recover(task)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of the next rows; they survive the death of this process from here on."""
        payload = msgspec.json.encode(outcomes)
        self._file.write(_checksum(payload) + b" " + payload + b"\n")
        self._file.flush()
        self.rows += len(outcomes)
        if time.monotonic() - self._synced > _FSYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have everything appended survive a power failure."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def outcomes(self) -> Iterator[Outcome]:
        """All of them, in the order of their rows."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield from _read(line) or []

    def remove(self) -> None:
        """The task is done."""
        self.path.unlink()
        self._file.close()

    def close(self) -> None:
        """Leave it for another run to continue."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadFile(f"Another run writes to {self.path} at this moment.") from None

    def _recover(self, task: Mapping[str, Any]) -> int:
        """Read all there is, cut off what is torn, and count the rows done."""
        head = self._file.readline()
        if not head.endswith(b"\n"):  # new, or torn in the first line
            self._file.seek(0)
            self._file.truncate()
            self._file.write(msgspec.json.encode(task) + b"\n")
            self._file.flush()
            self.sync()
            return 0
        self._compare(head, task)
        rows, whole = 0, self._file.tell()
        for line in self._file:
            if (outcomes := _read(line)) is None:
                break
            rows += len(outcomes)
            whole += len(line)
        self._file.seek(whole)
        self._file.truncate()
        return rows

    def _compare(self, head: bytes, task: Mapping[str, Any]) -> None:
        try:
            found = dict(msgspec.json.decode(head))
        except (msgspec.DecodeError, TypeError, ValueError):
            raise BadFile(f"{self.path} is no journal of a bulk run: name another output.") from None
        wanted = msgspec.json.decode(msgspec.json.encode(task))
        for name, value in wanted.items():
            if found.get(name) != value:
                raise BadFile(
                    f"{self.path} is of a run with another {name}: continue that one as it was begun, "
                    "or begin anew with --restart.",
                    field=name,
                )


def _checksum(payload: bytes) -> bytes:
    return b"%08x" % zlib.crc32(payload)


def _read(line: bytes) -> list[Outcome] | None:
    """The outcomes of one line, None where it is torn."""
    checksum, _, payload = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != _checksum(payload):
        return None
    return read_outcomes(payload)
