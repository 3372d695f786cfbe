"""Owns the shape of Vertex AI's custom containers; knows no other protocol.

Vertex AI tells the container its port and its routes in AIP_HTTP_PORT, AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE
("Custom container requirements for prediction"); errors are Google's (AIP-193), which Vertex AI passes on.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import schemas
from service.asked import Asked, Entries
from service.problems import Reply
from service.protocols import native
from service.protocols.route import Call, Documentation, Fact, Protocol, Question, Site

# google.rpc.Code; what is not here is the caller's mistake below 500, else the service's.
_CODES = {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


class Instances(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Questions in a row, and parameters for all of them."""

    instances: list[msgspec.Raw]
    parameters: schemas.ParametersBody | None = None


# Per instance its answer, its answers where top_k is above 1, or its failure.
_PREDICTIONS = {
    "type": "object",
    "properties": {"predictions": {"type": "array", "items": native.ANSWERS}},
    "required": ["predictions"],
}


class GoogleError(msgspec.Struct):
    """A failure in Google's shape; `code` is the HTTP status."""

    code: int
    message: str
    status: str


class GoogleFailure(msgspec.Struct):
    """A failure, as Google's APIs tell it."""

    error: GoogleError


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    routes: list[Question | Fact] = []
    if path := site.settings.vertex_predict_route:
        asking = Documentation(
            "Answer questions in the shape of Vertex AI",
            answer=_PREDICTIONS,
            body=Instances,
            narrow=_narrow,
            example={"instances": [native.EXAMPLE], "parameters": {"top_k": 2}},
        )
        routes.append(Question(path, _read, asking))
    if path := site.settings.vertex_health_route:
        health = Documentation("Readiness, where Vertex AI asks", native.Status)
        routes.append(Fact(path, native.ready, health, may_fail=(503,), open=True))
    return tuple(routes)


def _narrow(components: dict[str, Any], site: Site) -> dict[str, Any]:
    item = {"$ref": "#/components/schemas/Item"}
    components["Instances"]["properties"]["instances"] = native.some_of(item, site)
    return {"$ref": "#/components/schemas/Instances"}


def _read(call: Call) -> Asked:
    settings = call.site.settings
    body: Instances = schemas.decode(call.body, Instances)
    parameters = schemas.read_parameters(body.parameters or schemas.ParametersBody(), settings.max_top_k)
    instances = schemas.limited(body.instances, settings.max_items, "instances")
    items = [schemas.read_item(element, parameters) for element in instances]
    asked = schemas.Request(items, many=True)

    def encode(entries: Entries) -> Reply:
        return Reply(200, schemas.encode({"predictions": schemas.response_body(asked, entries)}))

    return Asked(asked, encode)


def _error(reply: Reply, error: Mapping[str, Any]) -> GoogleFailure:
    fallback = "INVALID_ARGUMENT" if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR else "INTERNAL"
    message = error["message"]
    if "item" in error:
        message = f"Instance {error['item']}: {message}"
    return GoogleFailure(GoogleError(reply.status, message, _CODES.get(reply.status, fallback)))


PROTOCOL = Protocol("vertex", _routes, _error, GoogleFailure)
