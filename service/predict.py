"""Owns one request, from its questions to its answers; knows neither web framework nor server."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from service import problems, schemas
from service.batching import Inferred, Scheduler
from service.engine.answering import Answer, Prepared, QuestionAnswerer
from service.errors import InvalidInput
from service.metrics import STAGES, Metrics
from service.parsed import ParsedRequest
from service.problems import Reply
from service.settings import Settings
from service.tracing import Work

# Seconds that a client will wait; afterwards its request is abandoned.
DEADLINE_HEADER = "X-Request-Timeout"


@dataclass(frozen=True, slots=True)
class Answered:
    """For each item of a request its answers, best first, or the reason why not; and the work, if any."""

    entries: list[list[Answer] | InvalidInput]
    work: Work | None


class Predictor:
    """Answers requests with one model. Any thread may call any method."""

    def __init__(self, settings: Settings, answerer: QuestionAnswerer, metrics: Metrics) -> None:
        self._settings = settings
        self._answerer = answerer
        self._scheduler = Scheduler(
            answerer,
            max_waiting=settings.max_waiting,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self.metrics = metrics

    @property
    def full(self) -> bool:
        """Whether a request that arrives now would be rejected."""
        return self._scheduler.full

    def refuse(self) -> Reply:
        """Count a request that is rejected unread; its reply."""
        self.metrics.refused()
        return problems.reply(self._scheduler.overloaded())

    def reply(self, read: Callable[[], ParsedRequest], timeout: str | None) -> tuple[Reply, Work | None]:
        """Answer the request that `read` returns; errors become replies in the native format.

        `timeout` is the value of the client's DEADLINE_HEADER. The work is None for errors.
        """
        arrived = time.monotonic()
        work = None
        try:
            reply, work = self._reply(read, timeout, arrived)
        except Exception as error:
            reply = problems.reply(error)
        self.metrics.request(reply.status, time.monotonic() - arrived, self._scheduler.requests)
        return reply, work

    def answer(self, asked: schemas.Request, timeout: str | None, arrived: float) -> Answered:
        """Answer the items of a parsed request that arrived at `arrived`, a time of time.monotonic.

        The entry of an invalid item is its error, so the others are answered. Raises InvalidInput for
        an invalid timeout, Overloaded and DeadlineExceeded.
        """
        deadline = arrived + _seconds_allowed(timeout, self._settings.deadline_seconds)
        with self._scheduler.admit():
            begun = time.monotonic()
            items = [self._prepare(item, deadline) for item in asked.items]
            prepared = [item for item in items if isinstance(item, Prepared)]
            if not prepared:
                return Answered([item for item in items if isinstance(item, InvalidInput)], None)
            tokenized = time.monotonic()
            inferred = self._scheduler.infer(prepared, deadline)
            started = time.monotonic()
            answers = iter(self._decode(prepared, inferred))
            entries = [item if isinstance(item, InvalidInput) else next(answers) for item in items]
        seconds = (tokenized - begun, inferred.waited, inferred.ran, time.monotonic() - started)
        tokens = sum(item.token_count for item in prepared)
        work = Work(begun, dict(zip(STAGES, seconds, strict=True)), len(prepared), tokens)
        self.metrics.answered(work, inferred.batch_sizes)
        return Answered(entries, work)

    def _reply(
        self, read: Callable[[], ParsedRequest], timeout: str | None, arrived: float
    ) -> tuple[Reply, Work | None]:
        asked = read()
        request = asked.request
        answered = self.answer(request, timeout, arrived)
        faults = [(i, entry) for i, entry in enumerate(answered.entries) if isinstance(entry, InvalidInput)]
        if len(faults) == len(request.items):  # no item is valid: the request fails as a whole
            index, fault = faults[0]
            return problems.reply(fault, index if request.many else None), None
        reply, work = asked.encode(answered.entries), answered.work
        stages = work.stages.items() if work else ()
        timing = ", ".join(f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages)
        headers = (*reply.headers, ("Server-Timing", timing))
        return Reply(reply.status, reply.body, headers, reply.content_type), work

    def _prepare(self, item: schemas.Question | InvalidInput, deadline: float) -> Prepared | InvalidInput:
        """Tokenize one item, or return its error."""
        if isinstance(item, InvalidInput):
            return item
        try:
            return self._answerer.prepare(item.question, item.context, item.parameters, deadline)
        except InvalidInput as problem:
            return problem

    def _decode(self, prepared: list[Prepared], inferred: Inferred) -> list[list[Answer]]:
        answers, first = [], 0
        for item in prepared:
            last = first + len(item.windows)
            answers.append(self._answerer.decode(item, inferred.logits[first:last]))
            first = last
        return answers


def _seconds_allowed(timeout: str | None, most: float) -> float:
    """The client's deadline if it sent one, at most the service's."""
    if timeout is None:
        return most
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:  # NaN is neither
        raise InvalidInput(f"{DEADLINE_HEADER} must be a number of seconds above 0.", field=DEADLINE_HEADER)
    return min(seconds, most)
