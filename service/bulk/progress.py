"""Owns the progress report of a bulk run; knows no file."""

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from service.bulk.rows import Chunk

_FIRST_LINE_SECONDS, _LINE_SECONDS = 5.0, 30.0


def show(chunks: Iterator[Chunk], done: int, share: float) -> Iterator[Chunk]:
    """Pass the chunks through and report progress on stderr: a bar on a terminal, else periodic lines.

    `done` rows and the fraction `share` of the input were answered by an earlier run.
    """
    return _bar(chunks, done, share) if sys.stderr.isatty() else _lines(chunks, done, share)


def _bar(chunks: Iterator[Chunk], done: int, share: float) -> Iterator[Chunk]:
    shape = "{percentage:3.0f}%|{bar}|{postfix} [{elapsed}<{remaining}]"
    started, rows = time.monotonic(), 0
    with tqdm(total=1.0, initial=share, bar_format=shape, file=sys.stderr) as bar:
        for chunk in chunks:
            yield chunk
            rows += len(chunk.outcomes)
            rate = rows / max(time.monotonic() - started, 1e-9)
            bar.set_postfix_str(f"{done + rows:,} rows, {rate:,.1f} rows/s", refresh=False)
            bar.update(max(0.0, chunk.share - bar.n))


def _lines(chunks: Iterator[Chunk], done: int, share: float) -> Iterator[Chunk]:
    started, rows = time.monotonic(), 0
    due = started + _FIRST_LINE_SECONDS
    for chunk in chunks:
        yield chunk
        rows += len(chunk.outcomes)
        now = time.monotonic()
        if now >= due:
            left = (1 - chunk.share) * (now - started) / max(chunk.share - share, 1e-9)
            print(
                f"{done + rows:,} rows, {chunk.share:.1%}, {rows / (now - started):,.1f} rows/s, "
                f"about {_duration(left)} left",
                file=sys.stderr,
                flush=True,
            )
            due = now + _LINE_SECONDS


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
