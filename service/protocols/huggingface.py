"""Owns what clients of Hugging Face's inference API expect beyond the native format; knows no other protocol.

Requests and answers have the native format, and `InferenceClient(model=URL)` posts to the URL itself; only
errors differ: huggingface_hub prints the value of `error`, @huggingface/inference requires it to be a string.
`error_type` is that of text-generation-inference, `estimated_time` that of the hosted API: seconds until a
retry. Headers such as x-wait-for-model have no effect, since a running service has loaded its model.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.problems import Reply
from service.protocols import native
from service.protocols.route import Documentation, InfoRoute, Protocol, QuestionRoute, Site


class HuggingFaceFailure(msgspec.Struct):
    """The body of an error response for clients of Hugging Face's inference API."""

    error: str
    error_type: str
    estimated_time: float | msgspec.UnsetType = msgspec.UNSET  # seconds


def _routes(site: Site) -> tuple[QuestionRoute | InfoRoute, ...]:
    documentation = Documentation("Readiness, for InferenceClient.health_check", answer=native.Status)
    return (InfoRoute("/health", native.ready, documentation, may_fail=(503,), public=True),)


def _error(reply: Reply, error: Mapping[str, Any]) -> HuggingFaceFailure:
    wait = dict(reply.headers).get("Retry-After")
    return HuggingFaceFailure(error["message"], error["code"], msgspec.UNSET if wait is None else float(wait))


PROTOCOL = Protocol(
    "huggingface", _routes, _error, HuggingFaceFailure, agents=("hf_hub/", "@huggingface/inference")
)
