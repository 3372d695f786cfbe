"""Owns the progress display of training: a bar on a terminal, else a line per minute."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 60.0


class Progress:
    """Counts steps and windows; rate and ETA are based on the last minute, without compilation."""

    def __init__(self, total: int, done: int) -> None:
        """Start at step `done` of `total`."""
        self._total, self._step = total, done
        self._bar = tqdm(total=total, initial=done, unit="step", disable=None, smoothing=0.02)
        self._lined = time.monotonic()
        self._steps = self._windows = 0  # since the last line

    def update(self, windows: int, loss: float, learning_rate: float) -> None:
        """Count a step of `windows` windows; `loss` is the moving average."""
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
        """Close the bar, which stays visible."""
        self._bar.close()
