"""Owns the native API, for questions and for operators; knows no other protocol."""

from collections.abc import Mapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from service import schemas
from service.parsed import Entries, ParsedRequest
from service.problems import Reply
from service.protocols.route import Call, Documentation, InfoRoute, Protocol, QuestionRoute, Site

EXAMPLE = {
    "question": "Who designed the lighthouse?",
    "context": "The lighthouse at Skarn Point was designed by the engineer Ingrid Solheim.",
}


class Problem(msgspec.Struct, omit_defaults=True):
    """An error: a code, a message, and the invalid field or list item."""

    code: str
    message: str
    field: str | None
    item: int | msgspec.UnsetType = msgspec.UNSET


class Failure(msgspec.Struct):
    """The body of an error response."""

    error: Problem


_ANSWER = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Answer", "ExplainedAnswer")]}
# Of one item, and of a request: one item's, or a list of them.
ANSWERS = {
    "anyOf": [_ANSWER, {"type": "array", "items": _ANSWER}, {"$ref": "#/components/schemas/Failure"}],
}
ANSWER_BODY = {"anyOf": [_ANSWER, {"type": "array", "items": ANSWERS}]}


class Status(msgspec.Struct):
    """Liveness or readiness."""

    status: str


def read(call: Call) -> ParsedRequest:
    """One question, or a list of them, as `schemas` describes. Raises InvalidJson and InvalidInput."""
    settings = call.site.settings
    request = schemas.parse_request(call.body, max_items=settings.max_items, max_top_k=settings.max_top_k)

    def encode(entries: Entries) -> Reply:
        return Reply(200, schemas.encode(schemas.response_body(request, entries)))

    return ParsedRequest(request, encode)


def narrow(components: dict[str, Any], site: Site) -> dict[str, Any]:
    """The forms of a body: a question, `inputs` with one question or a list, a list of these."""
    properties: dict[str, Any] = components["Call"]["properties"]
    shared = {name: properties[name] for name in ("parameters", "options")}
    item = {"$ref": "#/components/schemas/Item"}

    def form(title: str, required: dict[str, Any]) -> dict[str, Any]:
        form_schema = {"title": title, "properties": required | shared, "required": list(required)}
        return {**components["Call"], **form_schema}

    components["Bare"] = form("Bare", {name: properties[name] for name in ("question", "context")})
    components["Single"] = form("Single", {"inputs": item})
    components["Several"] = form("Several", {"inputs": some_of(item, site)})
    bare, single, several = ({"$ref": f"#/components/schemas/{n}"} for n in ("Bare", "Single", "Several"))
    return {"anyOf": [bare, single, several, some_of({"anyOf": [bare, single]}, site)]}


def some_of(item: dict[str, Any], site: Site) -> dict[str, Any]:
    """A list with at least one valid `item`; the results of the others are errors."""
    return {"type": "array", "minItems": 1, "maxItems": site.settings.max_items, "contains": item}


def _routes(site: Site) -> tuple[QuestionRoute | InfoRoute, ...]:
    asking = Documentation(
        "Answer one question, or a list of them",
        answer=ANSWER_BODY,
        body=schemas.Call,
        description="A result is an answer object, or with `top_k` above 1 a list of them, best first. A "
        "list of questions has a list of results, with an `error` for each invalid one; if all are invalid, "
        "the request fails.",
        narrow=narrow,
        example={"inputs": EXAMPLE, "parameters": {"top_k": 2}},
    )
    status = Documentation("Liveness", answer=Status)
    readiness = Documentation("Readiness", answer=Status)
    about = Documentation("Model, limits, versions and processor", answer=dict[str, Any])
    figures = Documentation("Metrics for Prometheus", answer=str, answer_media=(CONTENT_TYPE_LATEST,))
    return (
        QuestionRoute("/predict", read, asking),
        QuestionRoute("/", read, asking),
        InfoRoute("/health/live", lambda _: _json({"status": "live"}), status, public=True),
        InfoRoute("/health/ready", ready, readiness, may_fail=(503,), public=True),
        InfoRoute("/info", lambda call: _json(call.site.info()), about),
        InfoRoute("/metrics", _figures, figures, public=site.settings.open_metrics),
    )


def _figures(call: Call) -> Reply:
    return Reply(200, call.site.metrics(), (), CONTENT_TYPE_LATEST)


def ready(call: Call) -> Reply:
    """Raises NotReady while the service starts or drains."""
    call.site.check_ready()
    return _json({"status": "ready"})


def _json(body: Mapping[str, Any]) -> Reply:
    return Reply(200, schemas.encode(body))


PROTOCOL = Protocol("native", _routes, lambda _, error: {"error": error}, Failure)
