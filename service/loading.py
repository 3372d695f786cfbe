"""Owns the responses while the model loads: live, but not ready; knows no model."""

from collections.abc import Callable

import msgspec
from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from service import problems, schemas, tracing
from service.errors import NotReady
from service.guard import Keys, allow_origins
from service.json_log import request_lines
from service.metrics import Metrics
from service.paths import read_paths
from service.problems import Reply
from service.protocols import Routes
from service.protocols.route import Site
from service.settings import Settings
from service.tracing import Record, keep_records

_AVAILABLE = ("live", "figures")  # endpoints


def create_loading_app(settings: Settings, metrics: Metrics, keys: Keys) -> Flask:
    """The WSGI application of a worker until its model has loaded."""
    app = Flask("service", static_folder=None)
    routes = Routes(Site(settings, dict, metrics.text, _not_ready))
    read_paths(app, settings.root_path)
    sinks: list[Callable[[Record], None]] = [metrics.http]
    if settings.log_format == "json":
        sinks.append(request_lines(settings.served_name))
    wsgi = allow_origins(app.wsgi_app, settings.cors_origins)
    app.wsgi_app = keep_records(wsgi, sinks)  # type: ignore[assignment,method-assign] # as Flask documents

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        reply = problems.reply(error)
        tracing.current.get().code = msgspec.json.decode(reply.body)["error"]["code"]
        return _response(routes.failed(reply, request.path, request.headers.get("User-Agent", "")))

    @app.before_request
    def refuse_unless_available() -> None:
        if request.url_rule:
            tracing.current.get().route = request.url_rule.rule
        if request.endpoint == "figures" and not settings.open_metrics:
            keys.check(request.headers.get("Authorization"))
        if request.endpoint in _AVAILABLE:
            return
        if request.method == "POST":
            metrics.unread(problems.STATUS[NotReady])
        _not_ready()

    @app.get("/health/live")
    def live() -> Response:
        return _response(Reply(200, schemas.encode({"status": "live"})))

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    return app


def _not_ready() -> None:
    raise NotReady("The model is still loading: try again later.")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, content_type="application/json")
