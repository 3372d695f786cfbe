"""Owns this project's own routes, for questions and for operators; knows no other protocol."""

from collections.abc import Mapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from service import schemas
from service.engine.answering import Answer
from service.predict import Asked
from service.problems import Reply
from service.protocols.route import Call, Documentation, Fact, Protocol, Question, Site


class Problem(msgspec.Struct, omit_defaults=True):
    """What was wrong: a code for machines, a sentence for people, and the field or list item at fault."""

    code: str
    message: str
    field: str | None
    item: int | msgspec.UnsetType = msgspec.UNSET


class Failure(msgspec.Struct):
    """Every failure."""

    error: Problem


class Status(msgspec.Struct):
    """Whether the service lives, or is ready for questions."""

    status: str


def read(call: Call) -> Asked:
    """One question, or a list of them, as `schemas` describes. Raises InvalidJson and InvalidInput."""
    settings = call.site.settings
    asked = schemas.parse_request(call.body, max_items=settings.max_items, max_top_k=settings.max_top_k)
    return Asked(asked, lambda entries: Reply(200, schemas.encode(schemas.response_body(asked, entries))))


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    asking = Documentation(
        "Answer one question, or a list of them",
        answer=Answer | list[Answer] | list[Answer | list[Answer] | Failure],
        body=schemas.Call,
        description="One answer is an object, several (`top_k` above 1) are a list, best first. Lists are answered "
        "in order, and an item at fault is an `error` in its place; where all are, so is the whole request.",
    )
    status = Documentation("Whether the process answers at all", answer=Status)
    ready = Documentation("Whether questions may be sent here", answer=Status)
    about = Documentation("The model, the limits, the versions and the processor", answer=dict[str, Any])
    figures = Documentation("Figures for Prometheus", answer=str, answer_media=(CONTENT_TYPE_LATEST,))
    return (
        Question("/predict", read, asking),
        Question("/", read, asking),
        Fact("/health/live", lambda _: _json({"status": "live"}), status),
        Fact("/health/ready", _ready, ready, may_fail=(503,)),
        Fact("/info", lambda call: _json(call.site.info()), about),
        Fact("/metrics", lambda call: Reply(200, call.site.metrics(), (), CONTENT_TYPE_LATEST), figures),
    )


def _ready(call: Call) -> Reply:
    call.site.check_ready()
    return _json({"status": "ready"})


def _json(body: Mapping[str, Any]) -> Reply:
    return Reply(200, schemas.encode(body))


PROTOCOL = Protocol("native", _routes, lambda _, error: {"error": error}, Failure)
