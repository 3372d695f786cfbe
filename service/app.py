"""Owns the HTTP routes; knows neither how answers are found nor how the process was started."""

from collections.abc import Iterable
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from service import __version__, problems, schemas
from service.bodies import read_json
from service.engine.answering import QuestionAnswerer
from service.engine.cpu import cpu_model
from service.errors import NotReady
from service.metrics import Metrics
from service.paths import read_paths
from service.predict import DEADLINE_HEADER, Predictor
from service.problems import Reply
from service.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_JSON = "application/json"


def create_app(settings: Settings, answerer: QuestionAnswerer, metrics: Metrics | None = None) -> Flask:
    """The WSGI application around one loaded model; without `metrics` it counts for itself alone."""
    app = Flask("service", static_folder=None)
    app.config["DRAINING"] = False  # set by the server once it has been told to stop
    predictor = Predictor(settings, answerer, metrics or Metrics())
    read_paths(app, settings.root_path)
    app.wsgi_app = _refuse_when_full(app.wsgi_app, predictor)  # type: ignore[assignment, method-assign] # as Flask documents

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return _response(problems.reply(error))

    @app.post("/")
    @app.post("/predict")
    def predict() -> Response:
        return _response(predictor.reply(body, request.headers.get(DEADLINE_HEADER)))

    def body() -> bytes:
        return read_json(request, settings.max_body_bytes)

    @app.get("/metrics")
    def figures() -> Response:
        return Response(predictor.metrics.text(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/health/live")
    def live() -> Response:
        return _response(Reply(200, schemas.encode({"status": "live"})))

    @app.get("/health/ready")
    def ready() -> Response:
        if app.config["DRAINING"]:
            raise NotReady("The service is shutting down: send requests to another one.")
        return _response(Reply(200, schemas.encode({"status": "ready"})))

    @app.get("/info")
    def info() -> Response:
        facts = {
            "service": {
                "version": __version__,
                "onnxruntime": version("onnxruntime"),
                "tokenizers": version("tokenizers"),
            },
            "cpu": {"model": cpu_model(), "threads": answerer.threads},
            "model": {
                "path": str(settings.model),
                "graph": answerer.graph.name,
                "graph_reason": answerer.graph.reason or None,
                **answerer.artifact.manifest,
            },
            "limits": {
                name: value
                for name, value in asdict(settings).items()
                if name.startswith("max_") or name.endswith("_seconds")
            },
        }
        return _response(Reply(200, schemas.encode(facts)))

    return app


def _refuse_when_full(application: "WSGIApplication", predictor: Predictor) -> "WSGIApplication":
    """Middleware that refuses every POST, which is how questions come, while all places are taken.

    In an overload what a refusal costs is missing at the answers, so this comes before the framework, and
    before the body is read: the server drops that, or ends the connection where it is long.
    """

    def refuse_or_pass(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] != "POST" or not predictor.full:
            return application(environment, start_response)
        reply = predictor.refuse()
        headers = [("Content-Type", _JSON), ("Content-Length", str(len(reply.body))), *reply.headers]
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", headers)
        return [reply.body]

    return refuse_or_pass


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, content_type=_JSON)
