"""Owns the HTTP routes; knows neither how answers are found nor how the process was started."""

import math
import time
from dataclasses import asdict

import onnxruntime
import tokenizers
from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from service import __version__, problems, schemas
from service.batching import Inferred, Turnstile
from service.engine.answering import Answer, Prepared, QuestionAnswerer
from service.engine.cpu import cpu_model
from service.errors import InvalidInput, NotReady
from service.metrics import Metrics
from service.settings import Settings

# Seconds a client is ready to wait; the service then refuses rather than work for nobody.
DEADLINE_HEADER = "X-Request-Timeout"


def create_app(settings: Settings, answerer: QuestionAnswerer) -> Flask:
    """The WSGI application around one loaded model."""
    app = Flask("service", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    turnstile = Turnstile(
        answerer,
        max_waiting=settings.max_waiting,
        max_waiting_tokens=settings.max_waiting_tokens,
    )
    app.config["DRAINING"] = False  # set by the server once it has been told to stop
    metrics = Metrics()
    problems.install(app)

    def refuse() -> Response:
        """What a request is answered that the server turns away itself."""
        response = problems.respond(problem := turnstile.overloaded(), problems.status_of(problem))
        metrics.request(response.status_code, 0.0, turnstile.requests)
        return response

    # For a server that turns requests away before it parses them.
    app.config["FULL"] = lambda: turnstile.full
    app.config["REFUSE"] = refuse

    @app.before_request
    def arrive() -> None:
        g.arrived = time.monotonic()

    @app.after_request
    def leave(response: Response) -> Response:
        if request.endpoint == "predict":
            metrics.request(response.status_code, time.monotonic() - g.arrived, turnstile.requests)
        return response

    @app.post("/")
    @app.post("/predict")
    def predict() -> Response:
        with turnstile.admit():
            return _predict(settings, answerer, turnstile, metrics)

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/health/live")
    def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready")
    def ready() -> Response:
        if app.config["DRAINING"]:
            raise NotReady("The service is shutting down: send requests to another one.")
        return _json({"status": "ready"})

    @app.get("/info")
    def info() -> Response:
        return _json(
            {
                "service": {
                    "version": __version__,
                    "onnxruntime": onnxruntime.__version__,
                    "tokenizers": tokenizers.__version__,
                },
                "cpu": {"model": cpu_model(), "threads": answerer.threads},
                "model": {"path": str(settings.model), **answerer.artifact.manifest},
                "limits": {
                    name: value
                    for name, value in asdict(settings).items()
                    if name.startswith("max_") or name.endswith("_seconds")
                },
            }
        )

    return app


def _predict(
    settings: Settings, answerer: QuestionAnswerer, turnstile: Turnstile, metrics: Metrics
) -> Response:
    """Answer the request being handled, and say how long each stage took."""
    arrived: float = g.arrived
    if not request.is_json:
        raise UnsupportedMediaType
    deadline = arrived + _seconds_allowed(settings)
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) >= settings.max_body_bytes:
        raise RequestEntityTooLarge  # Werkzeug cuts a chunked body off at the limit and says nothing
    asked = schemas.parse_request(body, max_items=settings.max_items, max_top_k=settings.max_top_k)
    entries = [_prepare(answerer, item) for item in asked.items]
    prepared = [entry for entry in entries if isinstance(entry, Prepared)]
    bad = [(i, e) for i, e in enumerate(entries) if isinstance(e, InvalidInput)]
    if not prepared:  # nothing to answer: the whole request is at fault
        index, problem = bad[0]
        return problems.respond(problem, problems.status_of(problem), index if asked.many else None)
    tokenized = time.monotonic()
    inferred = turnstile.infer(prepared, deadline)
    started = time.monotonic()
    answers = iter(_decode(answerer, prepared, inferred))
    replies = [
        schemas.problem_body(entry, index)
        if isinstance(entry, InvalidInput)
        else schemas.answer_body(next(answers), entry.parameters.top_k)
        for index, entry in enumerate(entries)
    ]
    response = _json(replies if asked.many else replies[0])
    stages = {
        "tokenize": tokenized - arrived,
        "queue": inferred.waited,
        "infer": inferred.ran,
        "decode": time.monotonic() - started,
    }
    metrics.answered(stages, len(prepared), sum(item.token_count for item in prepared))
    response.headers["Server-Timing"] = ", ".join(
        f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages.items()
    )
    return response


def _seconds_allowed(settings: Settings) -> float:
    """The client's own deadline where it sent one, never more than the service's."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return settings.deadline_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # NaN too
        raise InvalidInput(f"{DEADLINE_HEADER} must be a number of seconds above 0.", field=DEADLINE_HEADER)
    return min(seconds, settings.deadline_seconds)


def _prepare(answerer: QuestionAnswerer, item: schemas.Question | InvalidInput) -> Prepared | InvalidInput:
    """Tokenize one item; a fault stays with the item, so the others keep their answers."""
    if isinstance(item, InvalidInput):
        return item
    try:
        return answerer.prepare(item.question, item.context, item.parameters)
    except InvalidInput as problem:
        return problem


def _decode(answerer: QuestionAnswerer, prepared: list[Prepared], inferred: Inferred) -> list[list[Answer]]:
    answers, first = [], 0
    for item in prepared:
        last = first + len(item.windows)
        answers.append(answerer.decode(item, inferred.logits[first:last]))
        first = last
    return answers


def _json(body: object) -> Response:
    return Response(schemas.encode(body), content_type="application/json")
