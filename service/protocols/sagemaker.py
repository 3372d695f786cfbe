"""Owns the API of SageMaker inference containers; knows no other protocol.

The contract is GET /ping and POST /invocations on port 8080 or SAGEMAKER_BIND_TO_PORT ("Custom Inference Code
with Hosting Services"); it does not define bodies. JSON is the native format, JSON Lines has one question per
line, as batch transforms send with SplitType Line. Errors are those of Multi Model Server, which most of
SageMaker's own images run.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import schemas
from service.errors import InvalidInput
from service.parsed import Entries, ParsedRequest
from service.problems import Reply
from service.protocols import native
from service.protocols.route import JSON, Call, Documentation, InfoRoute, Protocol, QuestionRoute, Site

LINES = "application/jsonlines"


class SageMakerFailure(msgspec.Struct):
    """An error; `code` is the HTTP status, `type` its name as in Multi Model Server."""

    code: int
    type: str
    message: str


def _routes(site: Site) -> tuple[QuestionRoute | InfoRoute, ...]:
    asking = Documentation(
        "Answer questions in the format of SageMaker",
        answer=native.ANSWER_BODY,
        body=schemas.Call,
        description="JSON Lines have one question and one answer per line. The response has the content type "
        "of the request, unless the Accept header selects the other one.",
        answer_media=(JSON, LINES),
        narrow=native.narrow,
        example=native.EXAMPLE,
    )
    ping = Documentation("Readiness, for SageMaker", answer=native.Status)
    return (
        QuestionRoute("/invocations", _read, asking, media=(JSON, LINES)),
        InfoRoute("/ping", native.ready, ping, may_fail=(503,), public=True),
    )


def _read(call: Call) -> ParsedRequest:
    media = (call.header("Content-Type") or JSON).partition(";")[0].strip().lower()
    request = _read_lines(call) if media == LINES else native.read(call).request
    accepted = call.header("Accept") or ""
    media_type = next((kind for kind in (LINES, JSON) if kind in accepted), media)

    def encode(entries: Entries) -> Reply:
        body = schemas.response_body(request, entries)
        if media_type != LINES:
            return Reply(200, schemas.encode(body))
        lines = b"".join(schemas.encode(line) + b"\n" for line in (body if request.many else [body]))
        return Reply(200, lines, content_type=LINES)

    return ParsedRequest(request, encode)


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
