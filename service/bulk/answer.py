"""Owns inference over rows on this machine, one single-threaded run per core; knows no file."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from service.bulk.rows import Chunk, Outcome, Problem, Row
from service.engine.answering import Prepared, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus
from service.engine.parameters import Parameters
from service.errors import InvalidInput
from service.settings import Settings

# Maximum rows and characters of a chunk, the unit of work: small enough for load balancing and for little
# lost work when the process is killed, large enough to amortize the overhead per chunk.
_CHUNK_ROWS, _CHUNK_CHARACTERS = 16, 64 << 10
# Maximum chunks in flight per core, so that the other cores have work while one is busy with a long document,
# and maximum characters of all chunks in flight.
_CHUNKS_AHEAD, _CHARACTERS_AHEAD = 16, 16 << 20


class ChunkAnswerer:
    """A model for single-threaded runs, thread-safe; as many concurrent calls as cores are useful."""

    def __init__(self, settings: Settings, parameters: Parameters) -> None:
        """Load the model; raises ArtifactError."""
        # With one thread only the single-threaded session is loaded, and scores do not depend on the number
        # of cores.
        one_core = replace(settings, threads=1)
        self._answerer = QuestionAnswerer.with_settings(load_artifact(settings.model), one_core)
        self._parameters = parameters

    def __call__(self, rows: Sequence[Row]) -> list[Outcome]:
        """Outcomes in the order of the rows.

        Each stage processes the whole chunk before the next one starts, since inference evicts other code and
        data from the CPU caches. Inference is per row, so that an answer does not depend on other rows.
        """
        prepared = [self._prepare(row) for row in rows]
        logits = [
            [] if isinstance(item, Problem) else self._answerer.infer(item.windows, narrow=True)
            for item in prepared
        ]
        return [
            item if isinstance(item, Problem) else self._answerer.decode(item, found)
            for item, found in zip(prepared, logits, strict=True)
        ]

    def _prepare(self, row: Row) -> Prepared | Problem:
        if isinstance(row.asked, Problem):
            return row.asked
        try:
            return self._answerer.prepare(*row.asked, self._parameters)
        except InvalidInput as error:
            return Problem(error.code, error.message, error.field, row.line, row.id)


def answer(rows: Iterator[Row], settings: Settings, parameters: Parameters) -> Iterator[Chunk]:
    """Answer rows in order on `settings.threads` cores; holds the chunks in flight in memory, no more."""
    cores = settings.threads or available_cpus()
    chunks = split(rows)
    first = next(chunks, None)
    if first is None:
        return
    chunks = itertools.chain((first,), chunks)
    answerer = ChunkAnswerer(settings, parameters)
    pending: deque[tuple[Future[list[Outcome]], int, float]] = deque()
    ahead = 0  # characters
    with ThreadPoolExecutor(cores, thread_name_prefix="core") as pool:
        try:
            while True:
                while len(pending) < _CHUNKS_AHEAD * cores and ahead < _CHARACTERS_AHEAD:
                    chunk = next(chunks, None)
                    if chunk is None:
                        break
                    pending.append((pool.submit(answerer, chunk), _characters(chunk), chunk[-1].share))
                    ahead += pending[-1][1]
                if not pending:
                    return
                future, characters, share = pending.popleft()
                yield Chunk(future.result(), share)
                ahead -= characters
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def split(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Group consecutive rows into chunks of similar size."""
    for first in rows:
        chunk, characters = [first], _characters([first])
        while characters < _CHUNK_CHARACTERS and len(chunk) < _CHUNK_ROWS:
            row = next(rows, None)
            if row is None:
                break
            chunk.append(row)
            characters += _characters([row])
        yield chunk


def _characters(rows: Sequence[Row]) -> int:
    return sum(len(text) for row in rows if isinstance(row.asked, tuple) for text in row.asked)
