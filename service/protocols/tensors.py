"""Owns tensors of the Open Inference Protocol, as JSON or bytes behind it; knows no question and no route.

Sources: KServe's "Open Inference Protocol (V2 Inference Protocol)", Triton's "Binary Tensor Data Extension".
Behind the JSON, whose length the header Inference-Header-Content-Length gives, lie the tensors that carry the
parameter `binary_data_size`, in order, little-endian; 4 bytes of length lead each element of a BYTES tensor.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from service.errors import InvalidInput

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")
_DIGITS = re.compile(r"[0-9]{1,18}")  # Python refuses to read numbers of thousands of digits
_FORMATS = {"FP64": "d", "INT64": "q"}

Scalar = str | int | float | bool


class InputTensor(msgspec.Struct, frozen=True):
    """One input: its elements in `data`, nested or flat, or binary behind the JSON."""

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    parameters: dict[str, Scalar | None] | None = None
    data: list[Any] | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """One requested output, and whether as binary data."""

    name: str
    parameters: dict[str, Scalar | None] | None = None


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output: its elements in `data`, flat in row-major order, or binary behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Scalar] = {}
    data: list[Scalar] | None = None


def split_body(body: bytes, json_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body and the binary data behind it. Raises InvalidInput for a length that is none."""
    if json_length is None:
        return body, memoryview(b"")
    if not _DIGITS.fullmatch(json_length) or int(json_length) > len(body):
        raise InvalidInput(
            f"{JSON_LENGTH_HEADER} must be a number of bytes of the body.", field=JSON_LENGTH_HEADER
        )
    length = int(json_length)
    return body[:length], memoryview(body)[length:]


def read_texts(tensors: Sequence[InputTensor], binary: memoryview) -> dict[str, list[Any]]:
    """The elements of each tensor by its name: texts of BYTES, in JSON anything. Raises InvalidInput."""
    found: dict[str, list[Any]] = {}
    for tensor in tensors:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            elements = list(_flat(tensor.data or []))
        else:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
                raise _bad(tensor, "has a binary_data_size beyond the body")
            if tensor.data is not None:
                raise _bad(tensor, "has both JSON data and binary data")
            elements, binary = list(_binary_texts(tensor, binary[:size])), binary[size:]
        if tensor.name in found:
            raise _bad(tensor, "appears twice")
        if math.prod(tensor.shape) != len(elements):
            raise _bad(tensor, f"has {len(elements)} elements, which does not match its shape")
        found[tensor.name] = elements
    if len(binary):
        raise InvalidInput("There is more binary data than the inputs declare.", field="inputs")
    return found


def write(tensor: OutputTensor) -> tuple[OutputTensor, bytes]:
    """The tensor with its elements moved to the bytes that go behind the JSON."""
    elements = tensor.data or []
    if tensor.datatype == "BYTES":
        texts = [str(element).encode() for element in elements]
        data = b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    else:
        data = struct.pack(f"<{len(elements)}{_FORMATS[tensor.datatype]}", *elements)
    parameters: Mapping[str, Scalar] = {**tensor.parameters, "binary_data_size": len(data)}
    return msgspec.structs.replace(tensor, data=None, parameters=parameters), data


def _flat(data: Any) -> Iterator[Any]:
    for element in data:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element


def _binary_texts(tensor: InputTensor, data: memoryview) -> Iterator[str]:
    if tensor.datatype != "BYTES":
        raise _bad(tensor, "has binary data of another datatype than BYTES")
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise _bad(tensor, "has binary data that ends within a length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise _bad(tensor, "has binary data that ends within an element")
        try:
            yield str(data[at : at + length], "utf-8")
        except UnicodeDecodeError:
            raise _bad(tensor, "has an element that is not UTF-8") from None
        at += length


def _bad(tensor: InputTensor, fault: str) -> InvalidInput:
    known = tensor.name if tensor.name in ("question", "context", "args") else "another name"
    return InvalidInput(f"The input {known} {fault}.", field=f"inputs.{known}")
