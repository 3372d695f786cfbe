"""Owns the API of Vertex AI custom containers; knows no other protocol.

Vertex AI sets the port and the routes of a container in AIP_HTTP_PORT, AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE
("Custom container requirements for prediction"); errors are Google's (AIP-193), which Vertex AI passes on.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import schemas
from service.parsed import Entries, ParsedRequest
from service.problems import Reply
from service.protocols import native
from service.protocols.route import Call, Documentation, InfoRoute, Protocol, QuestionRoute, Site

# google.rpc.Code; other statuses are INVALID_ARGUMENT below 500, else INTERNAL.
_CODES = {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


class Instances(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A list of questions, and parameters for all of them."""

    instances: list[msgspec.Raw]
    parameters: schemas.ParametersBody | None = None


# Per instance its answer, its answers where top_k is above 1, or its failure.
_PREDICTIONS = {
    "type": "object",
    "properties": {"predictions": {"type": "array", "items": native.ANSWERS}},
    "required": ["predictions"],
}


class GoogleError(msgspec.Struct):
    """An error in Google's format; `code` is the HTTP status."""

    code: int
    message: str
    status: str


class GoogleFailure(msgspec.Struct):
    """The body of an error response of Google's APIs."""

    error: GoogleError


def _routes(site: Site) -> tuple[QuestionRoute | InfoRoute, ...]:
    routes: list[QuestionRoute | InfoRoute] = []
    if path := site.settings.vertex_predict_route:
        asking = Documentation(
            "Answer questions in the format of Vertex AI",
            answer=_PREDICTIONS,
            body=Instances,
            narrow=_narrow,
            example={"instances": [native.EXAMPLE], "parameters": {"top_k": 2}},
        )
        routes.append(QuestionRoute(path, _read, asking))
    if path := site.settings.vertex_health_route:
        health = Documentation("Readiness, for Vertex AI", native.Status)
        routes.append(InfoRoute(path, native.ready, health, may_fail=(503,), public=True))
    return tuple(routes)


def _narrow(components: dict[str, Any], site: Site) -> dict[str, Any]:
    item = {"$ref": "#/components/schemas/Item"}
    components["Instances"]["properties"]["instances"] = native.some_of(item, site)
    return {"$ref": "#/components/schemas/Instances"}


def _read(call: Call) -> ParsedRequest:
    settings = call.site.settings
    body: Instances = schemas.decode(call.body, Instances)
    parameters = schemas.read_parameters(body.parameters or schemas.ParametersBody(), settings.max_top_k)
    instances = schemas.limited(body.instances, settings.max_items, "instances")
    items = [schemas.read_item(element, parameters) for element in instances]
    request = schemas.Request(items, many=True)

    def encode(entries: Entries) -> Reply:
        return Reply(200, schemas.encode({"predictions": schemas.response_body(request, entries)}))

    return ParsedRequest(request, encode)


def _error(reply: Reply, error: Mapping[str, Any]) -> GoogleFailure:
    fallback = "INVALID_ARGUMENT" if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR else "INTERNAL"
    message = error["message"]
    if "item" in error:
        message = f"Instance {error['item']}: {message}"
    return GoogleFailure(GoogleError(reply.status, message, _CODES.get(reply.status, fallback)))


PROTOCOL = Protocol("vertex", _routes, _error, GoogleFailure)
