"""Owns the messages of the Open Inference Protocol (v2), as KServe defines them; knows no question."""

from typing import Any

import msgspec

from service.protocols.tensors import InputTensor, OutputTensor, RequestedOutput


class InferenceRequest(msgspec.Struct, frozen=True):
    """An inference request of the Open Inference Protocol; the parameters may hold those of questions."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class InferenceResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """An inference response of the Open Inference Protocol."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class OpenInferenceFailure(msgspec.Struct):
    """The body of an error response of the Open Inference Protocol."""

    error: str


class ServerMetadata(msgspec.Struct):
    """The server and the protocol extensions that it supports."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """One input or output; -1 in a shape is a variable dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """The model, its inputs and its outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(msgspec.Struct):
    """Liveness of the server."""

    live: bool


class Ready(msgspec.Struct, omit_defaults=True):
    """Readiness of the server, or of the model `name`."""

    ready: bool
    name: str | msgspec.UnsetType = msgspec.UNSET
