"""Owns the figures for monitoring, in Prometheus' text format; knows no route and no text of the user's."""

from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPMethod, HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from service.process_memory import ProcessMemory
from service.tracing import Record, Work

STAGES = ("tokenize", "queue", "infer", "decode")
# Seconds; from a short question on a fast machine to a deadline.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# What a route's label is where the path is none of the service's, or was not looked at.
_NO_ROUTE = "other"


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
        self._request_questions = Histogram(
            "qa_request_questions", "Questions of an answered request.", registry=registry, buckets=_SIZES
        )
        self._batch_windows = Histogram(
            "qa_batch_windows",
            "Windows of text that went to the model in one turn.",
            registry=registry,
            buckets=_SIZES,
        )
        self._waiting = Gauge(
            "qa_waiting_requests",
            "Requests admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        http = Counter(
            "qa_http_requests",
            "Requests of every kind, by method, route and HTTP status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._http = cache(http.labels)
        refusals = Counter(
            "qa_refusals",
            "Requests that were not answered, by the code in the body.",
            ["reason"],
            registry=registry,
        )
        self._refusals = cache(refusals.labels)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Tell what is served, as the labels of a gauge that is always 1."""
        gauge = Gauge(
            "qa_model_info",
            "The model that is served and what runs it; always 1.",
            list(facts),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        gauge.labels(*facts.values()).set(1)

    def http(self, record: Record) -> None:
        """A request of whatever kind is over."""
        method = record.method if record.method in HTTPMethod.__members__ else _NO_ROUTE
        self._http(method, record.route or _NO_ROUTE, str(record.status)).inc()
        if record.code:
            self.refusal(record.code)

    def refusal(self, reason: str) -> None:
        """A request, or what should have been one, is not answered for the reason of that code."""
        self._refusals(reason).inc()

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

    def answered(self, work: Work, turns: Iterable[int]) -> None:
        """A request was answered; its stages have the names in STAGES, `turns` are windows."""
        for name, seconds in work.stages.items():
            self._stages[name].observe(seconds)
        self._questions.inc(work.questions)
        self._tokens.inc(work.tokens)
        self._request_questions.observe(work.questions)
        for windows in turns:
            self._batch_windows.observe(windows)

    def text(self) -> bytes:
        """Everything, of all workers."""
        everything = CollectorRegistry()
        everything.register(ProcessMemory(alone=self._shared is None))
        if self._shared is None:
            everything.register(self._registry)
            return generate_latest(everything)
        multiprocess.MultiProcessCollector(everything, str(self._shared))  # type: ignore[no-untyped-call] # its own
        return generate_latest(everything)
