"""Owns what the user sees while training: a bar on a terminal, a line a minute elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 60.0


class Progress:
    """Counts steps and windows; rate and time left are those of the last minute, not of compiling."""

    def __init__(self, total: int, done: int) -> None:
        """Begin a run of `total` steps of which `done` are done."""
        self._total, self._step = total, done
        self._bar = tqdm(total=total, initial=done, unit="step", disable=None, smoothing=0.02)
        self._lined = time.monotonic()
        self._steps = self._windows = 0  # since the last line

    def update(self, windows: int, loss: float, learning_rate: float) -> None:
        """One step over `windows` windows is done; `loss` is the running mean."""
        self._step += 1
        self._steps += 1
        self._windows += windows
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()
            return
        passed = time.monotonic() - self._lined
        if passed >= LINE_EVERY_S or self._step == self._total:
            left = (self._total - self._step) * passed / self._steps
            print(
                f"step {self._step}/{self._total}  loss {loss:.4f}  learning rate {learning_rate:.2e}  "
                f"{self._windows / passed:.1f} windows/s  {left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
            self._lined += passed
            self._steps = self._windows = 0

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
