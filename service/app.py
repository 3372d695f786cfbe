"""Owns the WSGI application: HTTP to the routes of the protocols and back; knows no shape and no model."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, Response, request

from service import __version__, compression, docs, page, problems, tracing
from service.asked import Asked
from service.bodies import read_body
from service.engine.answering import QuestionAnswerer
from service.engine.cpu import cpu_model
from service.errors import NotReady, Overloaded
from service.guard import Keys, allow_origins
from service.json_log import request_lines
from service.metrics import Metrics
from service.openapi import document
from service.paths import read_paths
from service.predict import DEADLINE_HEADER, Predictor
from service.problems import Reply
from service.protocols import Routes
from service.protocols.route import JSON, Call, Fact, Question, Site
from service.settings import Settings
from service.telemetry import open_spans
from service.tracing import Record, keep_records

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

_NO_KEYS = Keys()


def create_app(
    settings: Settings, answerer: QuestionAnswerer, metrics: Metrics | None = None, keys: Keys = _NO_KEYS
) -> Flask:
    """The WSGI application around one loaded model, for those who have one of the `keys`.

    Without `metrics` it counts for itself alone.
    """
    app = Flask("service", static_folder=None)
    _log.info("Loaded the %s", f"{answerer.graph.name} graph: {answerer.graph.reason}".removesuffix(": "))
    app.config["DRAINING"] = False  # set by the server once it has been told to stop
    predictor = Predictor(settings, answerer, metrics or Metrics())

    def check_ready() -> None:
        if app.config["DRAINING"]:
            raise NotReady("The service is shutting down: send requests to another one.")

    facts = _info(settings, answerer)
    site = Site(settings, lambda: facts, predictor.metrics.text, check_ready)
    routes = Routes(site)
    predictor.metrics.describe(_model_labels(answerer, site.model_name))
    open_to_all: set[str] = set()  # endpoints
    app.wsgi_app = _refuse_when_full(app.wsgi_app, predictor, routes)  # type: ignore[assignment,method-assign]
    read_paths(app, settings.root_path)
    wsgi = allow_origins(app.wsgi_app, settings.cors_origins)
    app.wsgi_app = keep_records(wsgi, _sinks(settings, site, predictor))  # type: ignore[assignment,method-assign]
    compression.register(app, settings.gzip_min_bytes)

    @app.before_request
    def admit() -> None:
        if request.url_rule:
            tracing.current.get().route = request.url_rule.rule
        if request.endpoint not in open_to_all:
            keys.check(request.headers.get("Authorization"))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return told(problems.reply(error))

    def told(reply: Reply) -> Response:
        """A response, a failure in the form of the protocol that was spoken."""
        if reply.status >= HTTPStatus.BAD_REQUEST:
            tracing.current.get().code = msgspec.json.decode(reply.body)["error"]["code"]
            reply = routes.failed(reply, request.path, request.headers.get("User-Agent", ""))
        return Response(reply.body, reply.status, reply.headers, content_type=reply.content_type)

    def ask(route: Question, **path: str) -> Response:
        def read() -> Asked:
            body = read_body(request, settings.max_body_bytes, route.media)
            return route.read(Call(site, request.headers.get, path, body))

        reply, tracing.current.get().work = predictor.reply(read, request.headers.get(DEADLINE_HEADER))
        return told(reply)

    def tell(route: Fact, **path: str) -> Response:
        return told(route.tell(Call(site, request.headers.get, path)))

    for (method, path), (_, route) in routes.all.items():
        rule = path.replace("{", "<").replace("}", ">")
        view: Any = partial(ask, route) if isinstance(route, Question) else partial(tell, route)
        endpoint = f"{method} {path}".replace(".", "_")
        app.add_url_rule(rule, endpoint, view, methods=[method])
        if isinstance(route, Fact) and route.open:
            open_to_all.add(endpoint)
    of_protocols = set(app.view_functions)
    # After the protocols' routes, which may be any that a platform chooses.
    page.register(app)
    docs.register(app, document(routes, page.PAGES | docs.PAGES))
    open_to_all |= set(app.view_functions) - of_protocols  # these tell what the documentation tells
    return app


def _sinks(settings: Settings, site: Site, predictor: Predictor) -> list[Callable[[Record], None]]:
    """Who is told of each request when it is over, in order: spans come before the log, which names them."""
    sinks: list[Callable[[Record], None]] = [predictor.metrics.http]
    if settings.otlp_endpoint:
        sinks.append(open_spans(settings.otlp_endpoint, site.model_name))
    if settings.log_format == "json":
        sinks.append(request_lines(site.model_name))
    return sinks


def _model_labels(answerer: QuestionAnswerer, name: str) -> dict[str, str]:
    artifact = answerer.artifact
    return {
        "model": name,
        "source": artifact.manifest["source"]["id"],
        "architecture": artifact.manifest["architecture"],
        "precision": artifact.precision,
        "graph": answerer.graph.name,
        "version": __version__,
        "onnxruntime": version("onnxruntime"),
    }


def _info(settings: Settings, answerer: QuestionAnswerer) -> dict[str, Any]:
    return {
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


def _refuse_when_full(
    application: "WSGIApplication", predictor: Predictor, routes: Routes
) -> "WSGIApplication":
    """Middleware that refuses every POST, which is how questions come, while all places are taken.

    In an overload what a refusal costs is missing at the answers, so this comes before the framework, and
    before the body is read: the server drops that, or ends the connection where it is long.
    """

    def refuse_or_pass(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] != "POST" or not predictor.full:
            return application(environment, start_response)
        agent, path = environment.get("HTTP_USER_AGENT", ""), environment["PATH_INFO"]
        reply = routes.failed(predictor.refuse(), path, agent)
        record = tracing.current.get()
        record.code = Overloaded.code
        if ("POST", path) in routes.all:
            record.route = path
        headers = [("Content-Type", JSON), ("Content-Length", str(len(reply.body))), *reply.headers]
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", headers)
        return [reply.body]

    return refuse_or_pass
