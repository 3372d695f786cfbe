"""Owns the Prometheus metrics; knows no route and no user text."""

from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPMethod, HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from service.process_memory import ProcessMemory
from service.tracing import Record, Work

STAGES = ("tokenize", "queue", "infer", "decode")
# Seconds; from a short question on a fast machine to the default deadline.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Label for unknown paths and for requests rejected before routing.
_NO_ROUTE = "other"


class Metrics:
    """The metrics of one worker process.

    In the server all workers write their metrics to files in the folder `shared`, and `text` aggregates them
    (prometheus_client's multi-process mode, which the server enables).
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "qa_requests",
            "Question-answering and malformed requests, by HTTP status.",
            ["status"],
            registry=registry,
        )
        self._refused = self._requests.labels(str(HTTPStatus.TOO_MANY_REQUESTS.value))
        self._seconds = Histogram(
            "qa_request_seconds",
            "Time from a request's arrival to its response, without requests rejected under overload.",
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
        self._tokens = Counter("qa_tokens", "Tokens processed by the model.", registry=registry)
        self._request_questions = Histogram(
            "qa_request_questions", "Questions per answered request.", registry=registry, buckets=_SIZES
        )
        self._batch_windows = Histogram(
            "qa_batch_windows",
            "Windows per batch.",
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
            "All HTTP requests, by method, route and HTTP status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._http = cache(http.labels)
        refusals = Counter(
            "qa_refusals",
            "Failed requests, by the error code in the body.",
            ["reason"],
            registry=registry,
        )
        self._refusals = cache(refusals.labels)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Export `facts` about the model as labels of a gauge that is always 1."""
        gauge = Gauge(
            "qa_model_info",
            "The served model and its runtime; always 1.",
            list(facts),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        gauge.labels(*facts.values()).set(1)

    def http(self, record: Record) -> None:
        """Count a finished request of any kind."""
        method = record.method if record.method in HTTPMethod.__members__ else _NO_ROUTE
        self._http(method, record.route or _NO_ROUTE, str(record.status)).inc()
        if record.code:
            self.refusal(record.code)

    def refusal(self, reason: str) -> None:
        """Count a failed or malformed request by its error code."""
        self._refusals(reason).inc()

    def refused(self) -> None:
        """Count a request rejected by the full queue; must be cheap."""
        self._refused.inc()

    def unread(self, status: int) -> None:
        """Count a request rejected with `status` before it was parsed."""
        self._requests.labels(str(status)).inc()

    def request(self, status: int, seconds: float, waiting: int) -> None:
        """Count a finished question-answering request; `waiting` others are unfinished."""
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.refused()
        else:
            self._requests.labels(str(status)).inc()
            self._seconds.observe(seconds)
        self._waiting.set(waiting)

    def answered(self, work: Work, batch_sizes: Iterable[int]) -> None:
        """Count an answered request; its stages are STAGES, `batch_sizes` has the windows of each batch."""
        for name, seconds in work.stages.items():
            self._stages[name].observe(seconds)
        self._questions.inc(work.questions)
        self._tokens.inc(work.tokens)
        self._request_questions.observe(work.questions)
        for windows in batch_sizes:
            self._batch_windows.observe(windows)

    def text(self) -> bytes:
        """The metrics of all workers in the text format."""
        everything = CollectorRegistry()
        everything.register(ProcessMemory(alone=self._shared is None))
        if self._shared is None:
            everything.register(self._registry)
            return generate_latest(everything)
        multiprocess.MultiProcessCollector(everything, str(self._shared))  # type: ignore[no-untyped-call] # its own
        return generate_latest(everything)
