"""Owns the crash-safe journal of a bulk run's outcomes; knows no input file and no model.

The first line is a JSON object that identifies the task. Then follows a record per chunk: the CRC-32 of the
payload as eight hexadecimal digits, a space, and the payload, the chunk's outcomes as a JSON array. A crash
can leave torn records at the end; on resumption the file is truncated after the last valid record.
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

# Interval of fsync. A power failure loses the records since the last one; a killed process loses none.
_FSYNC_SECONDS = 1.0


class Journal:
    """The outcomes of the first `rows` rows of one task, locked by the process that has it open."""

    def __init__(self, path: Path, task: Mapping[str, Any], *, restart: bool) -> None:
        """Open or create the file; `restart` truncates it.

        Raises BadFile if another process has locked it, or if it belongs to another task (naming the first
        entry of `task` that differs).
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
        """Append the outcomes of the next rows; on return they survive a kill of this process."""
        payload = msgspec.json.encode(outcomes)
        self._file.write(_checksum(payload) + b" " + payload + b"\n")
        self._file.flush()
        self.rows += len(outcomes)
        if time.monotonic() - self._synced > _FSYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """fsync: everything appended survives a power failure."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def outcomes(self) -> Iterator[Outcome]:
        """All outcomes in the order of the rows."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield from _read(line) or []

    def remove(self) -> None:
        """Delete the file after completion of the task."""
        self.path.unlink()
        self._file.close()

    def close(self) -> None:
        """Close the file; another run can resume from it. Without any outcome it is deleted."""
        if not self.rows and not self._file.closed:
            self.path.unlink(missing_ok=True)  # before the lock is released
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            current = False
        if not current:  # locked, or deleted by the other run after it was opened here
            raise BadFile(f"Another run is using {self.path}.")

    def _recover(self, task: Mapping[str, Any]) -> int:
        """Validate the records, truncate torn ones, and return the number of rows done."""
        head = self._file.readline()
        if head.endswith(b"\n"):
            found = self._read_head(head)
            rows, whole = 0, self._file.tell()
            for line in self._file:
                if (outcomes := _read(line)) is None:
                    break
                rows += len(outcomes)
                whole += len(line)
            if rows:
                self._compare(found, task)
                self._file.seek(whole)
                self._file.truncate()
                return rows
        # New, or the header is torn, or there is no outcome to resume from.
        self._file.seek(0)
        self._file.truncate()
        self._file.write(msgspec.json.encode(task) + b"\n")
        self._file.flush()
        self.sync()
        return 0

    def _read_head(self, head: bytes) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(head))
        except (msgspec.DecodeError, TypeError, ValueError):
            raise BadFile(f"{self.path} is not the journal of a bulk run: choose another output.") from None

    def _compare(self, found: Mapping[str, Any], task: Mapping[str, Any]) -> None:
        wanted = msgspec.json.decode(msgspec.json.encode(task))
        for name, value in wanted.items():
            if found.get(name) != value:
                raise BadFile(
                    f"{self.path} belongs to a run with another {name}: resume it with the same {name}, "
                    "or start over with --restart.",
                    field=name,
                )


def _checksum(payload: bytes) -> bytes:
    return b"%08x" % zlib.crc32(payload)


def _read(line: bytes) -> list[Outcome] | None:
    """The outcomes of one record; None if it is torn or corrupt."""
    checksum, _, payload = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != _checksum(payload):
        return None
    return read_outcomes(payload)
