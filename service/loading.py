"""Owns what is answered while the model loads: alive, but not ready; knows no model."""

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from service import problems, schemas
from service.errors import NotReady
from service.metrics import Metrics
from service.paths import read_paths
from service.problems import Reply
from service.protocols import Routes
from service.protocols.route import Site
from service.settings import Settings

_ANSWERED = ("live", "figures")


def create_loading_app(settings: Settings, metrics: Metrics) -> Flask:
    """The WSGI application of a worker until its model has loaded."""
    app = Flask("service", static_folder=None)
    routes = Routes(Site(settings, dict, metrics.text, _not_ready))
    read_paths(app, settings.root_path)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        agent = request.headers.get("User-Agent", "")
        return _response(routes.failed(problems.reply(error), request.path, agent))

    @app.before_request
    def wait() -> None:
        if request.endpoint in _ANSWERED:
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
