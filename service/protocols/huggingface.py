"""Owns what clients of Hugging Face's inference API expect beyond the native shape; knows no other protocol.

Their requests and answers are the native shape's (`InferenceClient(model=URL)` posts to the URL as it is), so only
errors differ: huggingface_hub prints the value of `error` as it is, and @huggingface/inference wants it to be text.
`error_type` is text-generation-inference's, `estimated_time` the hosted API's, which tells with it when a model that
was loading may be asked again. The header x-wait-for-model and its kin change nothing: a service that answers has
loaded its model.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service import schemas
from service.problems import Reply
from service.protocols.route import Call, Documentation, Fact, Protocol, Question, Site


class Failure(msgspec.Struct):
    """A failure, as clients of Hugging Face's inference API read it."""

    error: str
    error_type: str
    estimated_time: float | msgspec.UnsetType = msgspec.UNSET  # seconds


class Health(msgspec.Struct):
    """The service is ready."""

    status: str


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    documentation = Documentation("Readiness, where InferenceClient.health_check asks", answer=Health)
    return (Fact("/health", _health, documentation, may_fail=(503,)),)


def _health(call: Call) -> Reply:
    call.site.check_ready()
    return Reply(200, schemas.encode({"status": "ready"}))


def _error(reply: Reply, error: Mapping[str, Any]) -> Failure:
    wait = dict(reply.headers).get("Retry-After")
    return Failure(error["message"], error["code"], msgspec.UNSET if wait is None else float(wait))


PROTOCOL = Protocol("huggingface", _routes, _error, Failure, agents=("hf_hub/", "@huggingface/inference"))
