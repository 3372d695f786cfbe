"""Owns the figures for monitoring, in Prometheus' text format; knows no route and no text of the user's."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

STAGES = ("tokenize", "queue", "infer", "decode")
# Seconds; from a short question on a fast machine to a deadline.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one worker process.

    Under the server all workers write theirs into files of the folder `shared`, and `text` sums over them
    (prometheus_client's multi-process mode, which the server switches on).
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "qa_requests",
            "Requests for answers, and what could not be read as a request, by HTTP status.",
            ["status"],
            registry=registry,
        )
        self._refused = self._requests.labels(str(HTTPStatus.TOO_MANY_REQUESTS.value))
        self._seconds = Histogram(
            "qa_request_seconds",
            "Time from a request's arrival to its response, unless it is refused in an overload.",
            registry=registry,
            buckets=_BUCKETS,
        )
        stages = Histogram(
            "qa_stage_seconds",
            "Time of each stage of an answered request.",
            ["stage"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._stages = {name: stages.labels(name) for name in STAGES}  # a look-up per request costs 3 us each
        self._questions = Counter("qa_questions", "Questions answered.", registry=registry)
        self._tokens = Counter("qa_tokens", "Tokens run through the model.", registry=registry)
        self._waiting = Gauge(
            "qa_waiting_requests",
            "Requests admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def refused(self) -> None:
        """One request for answers found no place; this must be cheap."""
        self._refused.inc()

    def unread(self, status: int) -> None:
        """Something was refused with `status` without being read as a request for answers."""
        self._requests.labels(str(status)).inc()

    def request(self, status: int, seconds: float, waiting: int) -> None:
        """One request for answers is over; `waiting` others are not."""
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.refused()
        else:
            self._requests.labels(str(status)).inc()
            self._seconds.observe(seconds)
        self._waiting.set(waiting)

    def answered(self, stages: Mapping[str, float], questions: int, tokens: int) -> None:
        """A request was answered; `stages` in seconds, by the names in STAGES."""
        for name, seconds in stages.items():
            self._stages[name].observe(seconds)
        self._questions.inc(questions)
        self._tokens.inc(tokens)

    def text(self) -> bytes:
        """Everything, of all workers."""
        if self._shared is None:
            return generate_latest(self._registry)
        everything = CollectorRegistry()
        multiprocess.MultiProcessCollector(everything, str(self._shared))  # type: ignore[no-untyped-call] # its own
        return generate_latest(everything)
