"""Owns the list of protocols and which of them a request belongs to; knows no web framework."""

from collections.abc import Mapping
from typing import Any

import msgspec

from service import schemas
from service.problems import Reply
from service.protocols import huggingface, native, open_inference, sagemaker, vertex
from service.protocols.route import InfoRoute, Protocol, QuestionRoute, Site

# The first protocol with a path takes precedence: Vertex AI's paths are chosen in the deployment.
PROTOCOLS: tuple[Protocol, ...] = (
    vertex.PROTOCOL,
    native.PROTOCOL,
    huggingface.PROTOCOL,
    open_inference.PROTOCOL,
    sagemaker.PROTOCOL,
)


class Routes:
    """Every route of a service, by method and path, and the error format for each path and client."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.all: dict[tuple[str, str], tuple[Protocol, QuestionRoute | InfoRoute]] = {}
        for protocol in PROTOCOLS:
            for route in protocol.routes(site):
                key = ("POST" if isinstance(route, QuestionRoute) else "GET", route.path)
                self.all.setdefault(key, (protocol, route))
        self._by_path = {path: protocol for (_, path), (protocol, _) in reversed(self.all.items())}
        self._prefixes = {prefix: protocol for protocol in PROTOCOLS for prefix in protocol.prefixes}
        self._agents = {agent: protocol for protocol in PROTOCOLS for agent in protocol.agents}

    def failed(self, reply: Reply, path: str, agent: str) -> Reply:
        """An error reply in the native format, converted to the format that `path` or `agent` expects."""
        protocol = self._protocol(path, agent)
        if protocol is native.PROTOCOL:
            return reply
        error: Mapping[str, Any] = msgspec.json.decode(reply.body)["error"]
        return Reply(reply.status, schemas.encode(protocol.error(reply, error)), reply.headers)

    def _protocol(self, path: str, agent: str) -> Protocol:
        protocol = self._by_path.get(path)
        if protocol is None:
            protocol = next(
                (p for prefix, p in self._prefixes.items() if path.startswith(prefix)), native.PROTOCOL
            )
        if protocol is native.PROTOCOL:
            protocol = next((p for word, p in self._agents.items() if word in agent), protocol)
        return protocol
