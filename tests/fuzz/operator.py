"""Fuzzing target: mutated graphs with the custom operator. ONNX Runtime rejects or runs them."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from service.engine.kernel import LIBRARY
from tests.engine.test_operator import SHAPES
from tests.random_encoder import WORDS, RandomEncoder

_FILE = RandomEncoder(Path(tempfile.mkdtemp()), *SHAPES[0]).save()
_GRAPH = onnx.load(str(_FILE))
_MOST_BYTES = 1 << 20  # of one initializer
_SIZES = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.UINT8: 1, onnx.TensorProto.INT8: 1}

# Mutations of ten bytes each: what (attribute, shape, input, type), its index, and a value.
SEEDS = [
    b"",
    *(
        bytes([0, index]) + value.to_bytes(8, "little", signed=True)
        for index in range(8)
        for value in (-1, 3)
    ),
    *(bytes([1, index]) + (63).to_bytes(8, "little") for index in range(12)),
    *(bytes([what, 4]) + (1).to_bytes(8, "little") for what in (2, 3)),
]


def _mutate(graph: onnx.ModelProto, what: int, index: int, value: int) -> None:
    node, tensors = graph.graph.node[0], graph.graph.initializer
    attribute, tensor = node.attribute[index % len(node.attribute)], tensors[index % len(tensors)]
    if what == 0 and attribute.type == onnx.AttributeProto.INT:
        attribute.i = value
    elif what == 0 and attribute.ints:
        del attribute.ints[abs(value) % 9 :]
        attribute.ints.append(value)
    elif what == 0:
        attribute.f = float(value)
        del attribute.floats[abs(value) % 4 :]
    elif what == 1 and tensor.dims:
        tensor.dims[abs(value >> 32) % len(tensor.dims)] = value & 0xFFFF
        size = int(np.prod(tensor.dims)) * _SIZES[tensor.data_type]
        if size <= _MOST_BYTES:  # otherwise ONNX Runtime rejects the tensor as too short
            tensor.raw_data = tensor.raw_data[:size].ljust(size, b"\x7f")
    elif what == 2:
        node.input[index % len(node.input)] = node.input[value % len(node.input)]
    elif what == 3:
        tensor.data_type = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT8)[value % 3]


def check(data: bytes) -> None:
    """The graph must not crash the process."""
    graph = onnx.ModelProto()
    graph.CopyFrom(_GRAPH)
    for start in range(0, len(data) - 9, 10):
        value = int.from_bytes(data[start + 2 : start + 10], "little", signed=True)
        _mutate(graph, data[start] % 4, data[start + 1], value)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(LIBRARY))
    with suppress(Exception):  # ONNX Runtime's errors have no narrower type
        session = ort.InferenceSession(graph.SerializeToString(), options)
        for tokens in (1, 9):
            ids = (np.arange(tokens, dtype=np.int64) % WORDS)[None]
            session.run(None, {"input_ids": ids, "token_type_ids": ids % 2})
