"""Owns what clients of Hugging Face's inference API expect beyond the native shape; knows no other protocol.

Their requests and answers are the native shape's, and `InferenceClient(model=URL)` posts to the URL as it is;
only errors differ: huggingface_hub prints the value of `error`, @huggingface/inference wants it to be text.
`error_type` is text-generation-inference's, `estimated_time` the hosted API's: when to ask again a model that
was loading. The header x-wait-for-model and its kin change nothing: a service that answers has loaded its
model.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.problems import Reply
from service.protocols import native
from service.protocols.route import Documentation, Fact, Protocol, Question, Site


class HuggingFaceFailure(msgspec.Struct):
    """A failure, as clients of Hugging Face's inference API read it."""

    error: str
    error_type: str
    estimated_time: float | msgspec.UnsetType = msgspec.UNSET  # seconds


def _routes(site: Site) -> tuple[Question | Fact, ...]:
    documentation = Documentation("Readiness, where InferenceClient.health_check asks", answer=native.Status)
    return (Fact("/health", native.ready, documentation, may_fail=(503,), open=True),)


def _error(reply: Reply, error: Mapping[str, Any]) -> HuggingFaceFailure:
    wait = dict(reply.headers).get("Retry-After")
    return HuggingFaceFailure(error["message"], error["code"], msgspec.UNSET if wait is None else float(wait))


PROTOCOL = Protocol(
    "huggingface", _routes, _error, HuggingFaceFailure, agents=("hf_hub/", "@huggingface/inference")
)
