"""Owns the second graph of an int8 artifact, its encoder as one custom operator node; packs no weights.

The operator (service/engine/native/operator.c lists its inputs and attributes) is equivalent to a fused int8
BERT graph. This module matches such a graph from inputs to logits, and writes the node over the same
initializers in the same weights file.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from service.engine.artifact import KERNEL_FILE, MODEL_FILE

DOMAIN, OPERATOR = "qa_onnx", "Int8Encoder"
# Limits of native/model.h: columns per panel, and maximum tokens and layers (32-bit accumulators).
_PANEL, _MOST_TOKENS, _MOST_LAYERS, _WIDEST_HEAD = 64, 512, 63, 64
_ACTIVATIONS = {"Gelu": 0, "Relu": 1}


@dataclass(frozen=True, slots=True)
class _Linear:
    """Tensor names of a quantized product; `smooth` is "" if its input is not smoothed."""

    weights: str
    scale: str
    bias: str
    smooth: str


class _UnsupportedError(Exception):
    """The operator does not support this graph."""


def write_kernel_graph(folder: Path, max_length: int) -> bool:
    """Write the second graph into a packed artifact folder; False, without a file, if it is not supported.

    `max_length`: maximum tokens of a window.
    """
    file = folder / KERNEL_FILE
    file.unlink(missing_ok=True)
    try:
        model = _Graph(folder).fused(max_length)
    except _UnsupportedError:
        return False
    file.write_bytes(model.SerializeToString())
    file.chmod(0o644)
    return True


class _Graph:
    """Matches a graph from inputs to outputs; collects the node's inputs in the operator's order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
        graph = self._model.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._makers: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._users[name].append(node)
        self._inputs: list[str] = []  # of the node
        self._taken: dict[str, onnx.TensorProto] = {}  # initializers of the new graph

    def fused(self, max_length: int) -> onnx.ModelProto:
        """The model with one node; raises _UnsupportedError at the first mismatch."""
        norms = [node for node in self._model.graph.node if node.op_type == "LayerNormalization"]
        _need(len(norms) > 0)
        hidden, tables = self._embeddings(norms[0].input[0], max_length)
        self._norm(norms[0], hidden)
        at = len(self._inputs)
        layers, smoothed = [], []
        states = norms[0].output[0]
        while (quantized := self._quantized(states))[2].op_type == "QAttention":
            shape, flags, states = self._layer(states, quantized, hidden)
            layers.append(shape)
            smoothed += flags
        _need(0 < len(layers) <= _MOST_LAYERS and len(set(layers)) == 1)
        heads, _, activation = layers[0]
        _need(hidden % (16 * heads) == 0 and hidden <= _WIDEST_HEAD * heads)
        head, outputs = self._head(states, hidden)
        self._inputs[at:at] = head  # before the layers
        node = helper.make_node(
            OPERATOR,
            self._inputs,
            outputs,
            domain=DOMAIN,
            heads=heads,
            layers=len(layers),
            relu=activation,
            epsilon=float(_attribute(norms[0], "epsilon")),
            smoothed=smoothed,
            **tables,
        )
        return self._around(node)

    def _around(self, node: onnx.NodeProto) -> onnx.ModelProto:
        fed = [value for value in self._model.graph.input if value.name in node.input]
        graph = helper.make_graph(
            [node], "qa_onnx", fed, list(self._model.graph.output), list(self._taken.values())
        )
        opsets = [own for own in self._model.opset_import if own.domain in ("", "ai.onnx")]
        model = helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid(DOMAIN, 1)])
        model.ir_version = self._model.ir_version
        return model

    def _layer(
        self, states: str, quantized: tuple[str, str, onnx.NodeProto], hidden: int
    ) -> tuple[tuple[int, int, int], list[int], str]:
        """Match a layer: (heads, inner, activation), which products are smoothed, the name of the output."""
        _, smooth, attention = quantized
        _need(
            not any(attention.input[5:6])
            and not any(attention.input[8:])
            and not _attribute(attention, "unidirectional", 0)
        )
        _need(not self._values(attention.input[7]).any())
        qkv = _Linear(attention.input[1], attention.input[4], attention.input[2], smooth)
        smoothed = [self._linear(qkv, (hidden, 3 * hidden))]
        out, name = self._product(attention.output[0])
        smoothed.append(self._linear(out, (hidden, hidden)))
        after_attention, middle = self._residual(name, states)
        up, name = self._product(middle)
        inner = int(self._tensors[up.weights].dims[1]) if up.weights in self._tensors else 0
        _need(inner % _PANEL == 0)
        smoothed.append(self._linear(up, (hidden, inner)))
        activation = self._next(name)
        _need(activation.op_type in _ACTIVATIONS)
        _need(_attribute(activation, "approximate", b"none") == b"none")
        down, name = self._product(activation.output[0])
        smoothed.append(self._linear(down, (inner, hidden)))
        after_feed_forward, result = self._residual(name, middle)
        self._norm(after_attention, hidden)
        self._norm(after_feed_forward, hidden)
        heads = int(_attribute(attention, "num_heads"))
        return (heads, inner, _ACTIVATIONS[activation.op_type]), smoothed, result

    def _embeddings(self, name: str, max_length: int) -> tuple[int, dict[str, Any]]:
        """Match ids and the sum of embedding tables; returns the hidden size and the tables' attributes."""
        found: dict[str, tuple[str, float, float]] = {}
        names = [name]
        while names:
            node = self._maker(names.pop())
            if node.op_type == "Add":
                names += node.input
                continue
            _need(node.op_type == "DequantizeLinear")
            gather = self._maker(node.input[0])
            _need(gather.op_type == "Gather" and gather.input[0] in self._tensors)
            kind = {"input_ids": "words", "token_type_ids": "types"}.get(gather.input[1], "positions")
            if kind == "positions":
                self._need_counting(gather.input[1])
            _need(kind not in found)
            scale, zero_point = (float(self._values(node.input[i])) for i in (1, 2))
            found[kind] = (gather.input[0], scale, zero_point)
        _need({"words", "positions"} <= set(found))
        hidden = int(self._tensors[found["words"][0]].dims[1])
        _need(hidden % _PANEL == 0)
        _need(max_length <= min(_MOST_TOKENS, self._tensors[found["positions"][0]].dims[0]))
        self._inputs += ["input_ids", "token_type_ids"] if "types" in found else ["input_ids"]
        kinds = [kind for kind in ("words", "positions", "types") if kind in found]
        for kind in kinds:
            self._take(found[kind][0], onnx.TensorProto.UINT8, (-1, hidden))
        return hidden, {
            "types": int("types" in found),
            "table_scale": [found[kind][1] for kind in kinds],
            "table_zero_point": [found[kind][2] for kind in kinds],
        }

    def _need_counting(self, name: str) -> None:
        """Require that positions are 0, 1, 2, ...: the beginning of such a constant."""
        node = self._maker(name)
        _need(node.op_type == "Slice")
        table = self._values(node.input[0])
        _need(bool(np.array_equal(table.ravel(), np.arange(table.size))))
        _need(self._values(node.input[1]).tolist() == [0])

    def _residual(self, added: str, states: str) -> tuple[onnx.NodeProto, str]:
        """Match the LayerNorm of the sum of both; returns it and the name of its output."""
        addition = self._next(added, "Add")
        _need(set(addition.input) == {added, states})
        norm = self._next(addition.output[0], "LayerNormalization")
        return norm, norm.output[0]

    def _quantized(self, name: str) -> tuple[str, str, onnx.NodeProto]:
        """Match the quantization of `name`: quantized tensor, smoothing factors or "", product."""
        for node in self._users[name]:
            if node.op_type == "DynamicQuantizeLinear":
                return node.output[0], "", self._next(node.output[0])
            if node.op_type == "Mul" and node.input[1] in self._tensors:
                quantize = self._next(node.output[0], "DynamicQuantizeLinear")
                return quantize.output[0], node.input[1], self._next(quantize.output[0])
        raise _UnsupportedError

    def _product(self, name: str) -> tuple[_Linear, str]:
        """Match the product of `name`; returns it and the name of its result."""
        _, smooth, product = self._quantized(name)
        _need(product.op_type == "MatMulInteger" and not self._values(product.input[3]).any())
        scaled = self._next(self._next(product.output[0], "Cast").output[0], "Mul")
        scales = [maker for n in scaled.input if (maker := self._maker(n)).op_type == "Mul"]
        _need(len(scales) == 1)
        addition = self._next(scaled.output[0], "Add")
        biases = [name for name in addition.input if name in self._tensors]
        _need(len(biases) == 1)
        return _Linear(product.input[1], scales[0].input[1], biases[0], smooth), addition.output[0]

    def _linear(self, linear: _Linear, shape: tuple[int, int]) -> int:
        """Add the tensors of a product; returns 1 if it is smoothed, else 0."""
        self._take(linear.weights, onnx.TensorProto.INT8, shape)
        self._take(linear.scale, onnx.TensorProto.FLOAT, shape[1:])
        self._take(linear.bias, onnx.TensorProto.FLOAT, shape[1:])
        if linear.smooth:
            self._take(linear.smooth, onnx.TensorProto.FLOAT, shape[:1])
        return int(bool(linear.smooth))

    def _head(self, states: str, hidden: int) -> tuple[list[str], list[str]]:
        """Match the output layer; adds its tensors and returns the names of both logits."""
        head, output = self._product(states)
        _need(not head.smooth)
        sides = [self._next(name, "Squeeze").output[0] for name in self._next(output, "Split").output]
        _need(sides == ["start_logits", "end_logits"])
        at = len(self._inputs)
        self._take(head.weights, onnx.TensorProto.INT8, (hidden, 2))
        for name in (head.scale, head.bias):  # few values; often one scale for both columns
            self._add(f"{name}_head", np.broadcast_to(self._values(name).ravel(), (2,)))
        taken = self._inputs[at:]
        del self._inputs[at:]
        return taken, sides

    def _norm(self, node: onnx.NodeProto, hidden: int) -> None:
        for name in node.input[1:3]:
            self._take(name, onnx.TensorProto.FLOAT, (hidden,))

    def _take(self, name: str, kind: int, shape: tuple[int, ...]) -> None:
        """Add an initializer of this type and shape (-1: any) as the node's next input."""
        tensor = self._tensors.get(name)
        _need(tensor is not None and tensor.data_type == kind and len(tensor.dims) == len(shape))
        assert tensor is not None  # noqa: S101 - for the type checker
        _need(all(want in (-1, have) for want, have in zip(shape, tensor.dims, strict=True)))
        self._taken[name] = tensor
        self._inputs.append(name)

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add a small initializer, stored in the graph file, as the node's next input."""
        self._taken[name] = numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name)
        self._inputs.append(name)

    def _values(self, name: str) -> Any:
        """The values of a constant."""
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name], base_dir=str(self._folder))
        node = self._maker(name)
        _need(node.op_type == "Constant")
        return numpy_helper.to_array(_attribute(node, "value"))

    def _maker(self, name: str) -> onnx.NodeProto:
        node = self._makers.get(name)
        if node is None:
            raise _UnsupportedError
        return node

    def _next(self, name: str, kind: str | None = None) -> onnx.NodeProto:
        """The only consumer of `name`."""
        users: list[onnx.NodeProto] = self._users[name]
        _need(len(users) == 1 and kind in (None, users[0].op_type))
        return users[0]


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _need(condition: bool) -> None:
    if not condition:
        raise _UnsupportedError
