"""Owns the checkpoint of a run, a folder next to the output; knows no training step."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self, TextIO

import torch

from export.finetune import FinetuneError


class Checkpoint:
    """The folder OUTPUT.checkpoint, locked by one process in a `with` block.

    It is bound to the arguments of the run that created it: a result of mixed arguments could not be
    reproduced.
    """

    def __init__(self, output: Path) -> None:
        """Set the path; nothing is created."""
        self.folder = output.with_name(output.name + ".checkpoint")
        self._state = self.folder / "state.pt"
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        """Lock it. Raises FinetuneError if another run holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process dies
        except OSError as error:
            lock.close()
            raise FinetuneError(
                f"Another run is writing to {self.folder}; wait for it or stop it."
            ) from error
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock; saved state is kept."""
        if self._lock is not None:
            self._lock.close()

    def begin(self, arguments: dict[str, Any], restart: bool) -> None:
        """Bind it to the arguments; `restart` discards saved state. Raises FinetuneError if they differ."""
        record = self.folder / "arguments.json"
        if restart:
            for path in self.folder.glob("*"):
                if path.name != "lock":
                    path.unlink()
        elif record.exists():
            _refuse_other(self.folder, json.loads(record.read_text()), arguments)
        partial = record.with_suffix(".tmp")
        partial.write_text(json.dumps(arguments, indent=2) + "\n")
        partial.replace(record)

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None."""
        if not self._state.exists():
            return None
        state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state atomically; a process killed meanwhile leaves the previous one."""
        partial = self._state.with_suffix(".tmp")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state)

    def remove(self) -> None:
        """Delete it after completion of the run."""
        shutil.rmtree(self.folder)


def _refuse_other(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    now = json.loads(json.dumps(now))
    changed = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise FinetuneError(
            f"{folder} was begun with other arguments ({'; '.join(changed)}): "
            "repeat those, or pass --restart to begin anew."
        )
