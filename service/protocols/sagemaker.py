"""Owns the shape of SageMaker's inference containers; knows no other protocol.

The contract is GET /ping and POST /invocations on port 8080 or SAGEMAKER_BIND_TO_PORT ("Custom Inference Code
with Hosting Services"); it leaves bodies open. JSON here is the native shape, JSON Lines one question a line,
as batch transforms send with SplitType Line. Errors are those of Multi Model Server, which most of
SageMaker's own images run.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import schemas
from service.asked import Asked, Entries
from service.errors import InvalidInput
from service.problems import Reply
from service.protocols import native
from service.protocols.route import JSON, Call, Documentation, Fact, Protocol, Question, Site

LINES = "application/jsonlines"


class SageMakerFailure(msgspec.Struct):
    """A failure; `code` is the HTTP status, `type` its name as Multi Model Server writes it."""

    code: int
    type: str
    message: str


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    asking = Documentation(
        "Answer questions in the shape of SageMaker",
        answer=native.ANSWER_BODY,
        body=schemas.Call,
        description="JSON Lines are one question a line and answered one a line. The answer has the type of "
        "the request, or the one of the two that the Accept header names.",
        answer_media=(JSON, LINES),
        narrow=native.narrow,
        example=native.EXAMPLE,
    )
    ping = Documentation("Readiness, where SageMaker asks", answer=native.Status)
    return (
        Question("/invocations", _read, asking, media=(JSON, LINES)),
        Fact("/ping", native.ready, ping, may_fail=(503,), open=True),
    )


def _read(call: Call) -> Asked:
    media = (call.header("Content-Type") or JSON).partition(";")[0].strip().lower()
    asked = _read_lines(call) if media == LINES else native.read(call).request
    accepted = call.header("Accept") or ""
    wanted = next((kind for kind in (LINES, JSON) if kind in accepted), media)

    def encode(entries: Entries) -> Reply:
        body = schemas.response_body(asked, entries)
        if wanted != LINES:
            return Reply(200, schemas.encode(body))
        lines = b"".join(schemas.encode(line) + b"\n" for line in (body if asked.many else [body]))
        return Reply(200, lines, content_type=LINES)

    return Asked(asked, encode)


def _read_lines(call: Call) -> schemas.Request:
    settings = call.site.settings
    lines = [line for line in call.body.split(b"\n") if line.strip()]
    items: list[schemas.Question | InvalidInput] = []
    for line in schemas.limited(lines, settings.max_items, None):
        try:
            items.append(schemas.read_call(schemas.decode(line, schemas.Call), settings.max_top_k))
        except InvalidInput as problem:
            items.append(problem)
        except schemas.InvalidJson as problem:
            items.append(InvalidInput(problem.message.replace("body", "line", 1)))
    return schemas.Request(items, many=True)


def _error(reply: Reply, error: Mapping[str, Any]) -> SageMakerFailure:
    name = HTTPStatus(reply.status).phrase.title().replace(" ", "").replace("-", "")
    message = error["message"]
    if "item" in error:
        message = f"Item {error['item']}: {message}"
    return SageMakerFailure(reply.status, f"{name}Exception", message)


PROTOCOL = Protocol("sagemaker", _routes, _error, SageMakerFailure)
