"""Owns one request for answers, from its body to its reply; knows neither web framework nor server."""

import math
import time
from collections.abc import Callable

from service import problems, schemas
from service.batching import Inferred, Turnstile
from service.engine.answering import Answer, Prepared, QuestionAnswerer
from service.errors import InvalidInput
from service.metrics import Metrics
from service.problems import Reply
from service.settings import Settings

# Seconds a client is ready to wait; the service then refuses rather than work for nobody.
DEADLINE_HEADER = "X-Request-Timeout"


class Predictor:
    """Answers requests with one model. Any thread may call any method."""

    def __init__(self, settings: Settings, answerer: QuestionAnswerer) -> None:
        self._settings = settings
        self._answerer = answerer
        self._turnstile = Turnstile(
            answerer,
            max_waiting=settings.max_waiting,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self.metrics = Metrics()

    @property
    def full(self) -> bool:
        """Whether a request that came now would be refused."""
        return self._turnstile.full

    def refusal(self) -> Reply:
        """The reply to requests that the server turns away, and counts in `metrics`, itself."""
        return problems.reply(self._turnstile.overloaded())

    def reply(self, read: Callable[[], bytes], timeout: str | None) -> Reply:
        """Answer the request whose body `read` gives, or say why not; raises nothing.

        It is read only once the request has a place, so that refusing is cheap. `timeout` is the text of
        the client's DEADLINE_HEADER.
        """
        arrived = time.monotonic()
        try:
            with self._turnstile.admit():
                reply = self._answer(read, timeout, arrived)
        except Exception as error:
            reply = problems.reply(error)
        self.metrics.request(reply.status, time.monotonic() - arrived, self._turnstile.requests)
        return reply

    def _answer(self, read: Callable[[], bytes], timeout: str | None, arrived: float) -> Reply:
        """Go through the stages, and say how long each took."""
        settings = self._settings
        deadline = arrived + _seconds_allowed(timeout, settings.deadline_seconds)
        asked = schemas.parse_request(read(), max_items=settings.max_items, max_top_k=settings.max_top_k)
        entries = [self._prepare(item, deadline) for item in asked.items]
        prepared = [entry for entry in entries if isinstance(entry, Prepared)]
        bad = [(i, e) for i, e in enumerate(entries) if isinstance(e, InvalidInput)]
        if not prepared:  # nothing to answer: the whole request is at fault
            index, problem = bad[0]
            return problems.reply(problem, index if asked.many else None)
        tokenized = time.monotonic()
        inferred = self._turnstile.infer(prepared, deadline)
        started = time.monotonic()
        answers = iter(self._decode(prepared, inferred))
        replies = [
            schemas.problem_body(entry, index)
            if isinstance(entry, InvalidInput)
            else schemas.answer_body(next(answers), entry.parameters.top_k)
            for index, entry in enumerate(entries)
        ]
        body = schemas.encode(replies if asked.many else replies[0])
        stages = {
            "tokenize": tokenized - arrived,
            "queue": inferred.waited,
            "infer": inferred.ran,
            "decode": time.monotonic() - started,
        }
        self.metrics.answered(stages, len(prepared), sum(item.token_count for item in prepared))
        timing = ", ".join(f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages.items())
        return Reply(200, body, (("Server-Timing", timing),))

    def _prepare(self, item: schemas.Question | InvalidInput, deadline: float) -> Prepared | InvalidInput:
        """Tokenize one item; a fault stays with the item, so the others keep their answers."""
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
    """The client's own deadline where it sent one, never more than the service's."""
    if timeout is None:
        return most
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # NaN too
        raise InvalidInput(f"{DEADLINE_HEADER} must be a number of seconds above 0.", field=DEADLINE_HEADER)
    return min(seconds, most)
