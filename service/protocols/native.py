"""Owns this project's own routes, for questions and for operators; knows no other protocol."""

from collections.abc import Mapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from service import schemas
from service.asked import Asked
from service.problems import Reply
from service.protocols.route import Call, Documentation, Fact, Protocol, Question, Site

EXAMPLE = {
    "question": "Who designed the lighthouse?",
    "context": "The lighthouse at Skarn Point was designed by the engineer Ingrid Solheim.",
}


class Problem(msgspec.Struct, omit_defaults=True):
    """What was wrong: a code for machines, a sentence for people, and the field or list item at fault."""

    code: str
    message: str
    field: str | None
    item: int | msgspec.UnsetType = msgspec.UNSET


class Failure(msgspec.Struct):
    """Every failure."""

    error: Problem


_ANSWER = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Answer", "ExplainedAnswer")]}
# Of one item, and of a request: one item's, or a list of them.
ANSWERS = {
    "anyOf": [_ANSWER, {"type": "array", "items": _ANSWER}, {"$ref": "#/components/schemas/Failure"}],
}
ANSWER_BODY = {"anyOf": [_ANSWER, {"type": "array", "items": ANSWERS}]}


class Status(msgspec.Struct):
    """Whether the service lives, or is ready for questions."""

    status: str


def read(call: Call) -> Asked:
    """One question, or a list of them, as `schemas` describes. Raises InvalidJson and InvalidInput."""
    settings = call.site.settings
    asked = schemas.parse_request(call.body, max_items=settings.max_items, max_top_k=settings.max_top_k)
    return Asked(asked, lambda entries: Reply(200, schemas.encode(schemas.response_body(asked, entries))))


def narrow(components: dict[str, Any], site: Site) -> dict[str, Any]:
    """The three forms of a body: a question, `inputs` with one or a list, a list of either."""
    properties: dict[str, Any] = components["Call"]["properties"]
    shared = {name: properties[name] for name in ("parameters", "options")}
    item = {"$ref": "#/components/schemas/Item"}

    def form(title: str, required: dict[str, Any]) -> dict[str, Any]:
        told = {"title": title, "properties": required | shared, "required": list(required)}
        return {**components["Call"], **told}

    components["Bare"] = form("Bare", {name: properties[name] for name in ("question", "context")})
    components["Single"] = form("Single", {"inputs": item})
    components["Several"] = form("Several", {"inputs": some_of(item, site)})
    bare, single, several = ({"$ref": f"#/components/schemas/{n}"} for n in ("Bare", "Single", "Several"))
    return {"anyOf": [bare, single, several, some_of({"anyOf": [bare, single]}, site)]}


def some_of(item: dict[str, Any], site: Site) -> dict[str, Any]:
    """A list of which at least one is an `item`; the others are answered with their failures."""
    return {"type": "array", "minItems": 1, "maxItems": site.settings.max_items, "contains": item}


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    asking = Documentation(
        "Answer one question, or a list of them",
        answer=ANSWER_BODY,
        body=schemas.Call,
        description="One answer is an object, several (`top_k` above 1) are a list, best first. Lists are "
        "answered in order, an item at fault with an `error` in its place; where all are, so is the request.",
        narrow=narrow,
        example={"inputs": EXAMPLE, "parameters": {"top_k": 2}},
    )
    status = Documentation("Whether the process answers at all", answer=Status)
    readiness = Documentation("Whether questions may be sent here", answer=Status)
    about = Documentation("The model, the limits, the versions and the processor", answer=dict[str, Any])
    figures = Documentation("Figures for Prometheus", answer=str, answer_media=(CONTENT_TYPE_LATEST,))
    return (
        Question("/predict", read, asking),
        Question("/", read, asking),
        Fact("/health/live", lambda _: _json({"status": "live"}), status, open=True),
        Fact("/health/ready", ready, readiness, may_fail=(503,), open=True),
        Fact("/info", lambda call: _json(call.site.info()), about),
        Fact("/metrics", _figures, figures, open=site.settings.open_metrics),
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
