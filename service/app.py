"""Owns the WSGI application: HTTP to the routes of the protocols and back; knows no format and no model."""

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
from service.bodies import read_body
from service.engine.answering import QuestionAnswerer
from service.engine.cpu import cpu_model
from service.errors import NotReady, Overloaded
from service.guard import Keys, allow_origins
from service.json_log import request_lines
from service.metrics import Metrics
from service.openapi import document
from service.parsed import ParsedRequest
from service.paths import read_paths
from service.predict import DEADLINE_HEADER, Predictor
from service.problems import Reply
from service.protocols import Routes
from service.protocols.route import JSON, Call, InfoRoute, QuestionRoute, Site
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
    """The WSGI application for one loaded model, for clients with one of the `keys`.

    Without `metrics` it has metrics of its own.
    """
    app = Flask("service", static_folder=None)
    _log.info("Loaded the %s", f"{answerer.graph.name} graph: {answerer.graph.reason}".removesuffix(": "))
    app.config["DRAINING"] = False  # set by the server when it begins to shut down
    predictor = Predictor(settings, answerer, metrics or Metrics())

    def check_ready() -> None:
        if app.config["DRAINING"]:
            raise NotReady("The service is shutting down: send requests to another one.")

    facts = _info(settings, answerer)
    site = Site(settings, lambda: facts, predictor.metrics.text, check_ready)
    routes = Routes(site)
    predictor.metrics.describe(_model_labels(answerer, site.model_name))
    public_endpoints: set[str] = set()
    app.wsgi_app = _reject_when_full(app.wsgi_app, predictor, routes)  # type: ignore[assignment,method-assign]
    read_paths(app, settings.root_path)
    wsgi = allow_origins(app.wsgi_app, settings.cors_origins)
    app.wsgi_app = keep_records(wsgi, _sinks(settings, site, predictor))  # type: ignore[assignment,method-assign]
    compression.register(app, settings.gzip_min_bytes)

    @app.before_request
    def admit() -> None:
        if request.url_rule:
            tracing.current.get().route = request.url_rule.rule
        if request.endpoint not in public_endpoints:
            keys.check(request.headers.get("Authorization"))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return respond(problems.reply(error))

    def respond(reply: Reply) -> Response:
        """The reply as a response; an error in the format of the request's protocol."""
        if reply.status >= HTTPStatus.BAD_REQUEST:
            tracing.current.get().code = msgspec.json.decode(reply.body)["error"]["code"]
            reply = routes.failed(reply, request.path, request.headers.get("User-Agent", ""))
        return Response(reply.body, reply.status, reply.headers, content_type=reply.content_type)

    def view_questions(route: QuestionRoute, **path: str) -> Response:
        def read() -> ParsedRequest:
            body = read_body(request, settings.max_body_bytes, route.media)
            return route.read(Call(site, request.headers.get, path, body))

        reply, tracing.current.get().work = predictor.reply(read, request.headers.get(DEADLINE_HEADER))
        return respond(reply)

    def view_info(route: InfoRoute, **path: str) -> Response:
        return respond(route.respond(Call(site, request.headers.get, path)))

    for (method, path), (_, route) in routes.all.items():
        rule = path.replace("{", "<").replace("}", ">")
        view: Any = (
            partial(view_questions, route) if isinstance(route, QuestionRoute) else partial(view_info, route)
        )
        endpoint = f"{method} {path}".replace(".", "_")
        app.add_url_rule(rule, endpoint, view, methods=[method])
        if isinstance(route, InfoRoute) and route.public:
            public_endpoints.add(endpoint)
    protocol_endpoints = set(app.view_functions)
    # After the routes of the protocols, whose paths a platform may choose.
    page.register(app)
    docs.register(app, document(routes, page.PAGES | docs.PAGES))
    public_endpoints |= set(app.view_functions) - protocol_endpoints  # the page and the documentation
    return app


def _sinks(settings: Settings, site: Site, predictor: Predictor) -> list[Callable[[Record], None]]:
    """The receivers of each finished request's record, in order: spans before the log, which names them."""
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


def _reject_when_full(
    application: "WSGIApplication", predictor: Predictor, routes: Routes
) -> "WSGIApplication":
    """Middleware that rejects every POST, the method of all questions, while the queue is full.

    Under overload every rejection takes CPU time from answers, so this runs before the framework and before
    the body is read; the server discards a short body and closes the connection after a long one.
    """

    def reject_or_pass(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
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

    return reject_or_pass
