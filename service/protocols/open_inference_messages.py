"""Owns the messages of the Open Inference Protocol (v2), as KServe defines them; knows no question."""

from typing import Any

import msgspec

from service.protocols.tensors import InputTensor, OutputTensor, OutputWish


class InferenceRequest(msgspec.Struct, frozen=True):
    """An inference request of the Open Inference Protocol; the parameters may hold those of questions."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[OutputWish] | None = None


class InferenceResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """An inference response of the Open Inference Protocol."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class OpenInferenceFailure(msgspec.Struct):
    """A failure, as the Open Inference Protocol tells it."""

    error: str


class ServerMetadata(msgspec.Struct):
    """The server and the extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """One input or output; -1 in a shape stands for any number."""

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
    """Whether the server lives."""

    live: bool


class Ready(msgspec.Struct, omit_defaults=True):
    """Whether the server, or the model named, is ready."""

    ready: bool
    name: str | msgspec.UnsetType = msgspec.UNSET
