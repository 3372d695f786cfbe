"""Owns the reading of a fused int8 graph as a BERT encoder, for the service's kernel; changes nothing."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from service.engine.artifact import ENCODER_FILE, MODEL_FILE
from service.engine.encoder import has_shape

_ACTIVATIONS = {"Gelu": "gelu", "Relu": "relu"}


class _OtherShapeError(Exception):
    """The graph is not what the kernel computes."""


def describe(folder: Path) -> bool:
    """Write encoder.json into a packed artifact folder; False, and no file, where the kernel cannot run it.

    The file names each tensor's place in model.onnx.data as [offset, *shape].
    """
    (folder / ENCODER_FILE).unlink(missing_ok=True)
    try:
        described = _Graph(folder).encoder()
    except _OtherShapeError:
        return False
    (folder / ENCODER_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (folder / ENCODER_FILE).chmod(0o644)
    return True


class _Graph:
    """A graph walked from its inputs to its outputs, each step being the only one the kernel knows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        model = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers: dict[str, onnx.NodeProto] = {
            name: node for node in model.graph.node for name in node.output
        }
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._users[name].append(node)

    def encoder(self) -> dict[str, Any]:
        """All of it; raises _OtherShapeError at the first step that is another."""
        norms = [node for node in self._makers.values() if node.op_type == "LayerNormalization"]
        _need(len(norms) > 0)
        norm = norms[0]
        tables = self._tables(norm.input[0])
        described: dict[str, Any] = {
            "hidden": tables["words"]["rows"][2],
            "epsilon": _attribute(norm, "epsilon"),
            "tables": tables,
            "after_embedding": self._norm(norm),
        }
        layers: list[dict[str, Any]] = []
        states, heads, activations = norm.output[0], set(), set()
        while (rounded := self._rounding(states))[2].op_type == "QAttention":
            layer, count, activation, states = self._layer(states, rounded)
            layers.append(layer)
            heads.add(count)
            activations.add(activation)
        _need(len(layers) > 0 and len(heads) == 1 and len(activations) == 1)
        sizes = (tables["words"]["rows"][2], layers[0]["up"]["weights"][2], *heads, len(layers))
        _need(has_shape(*sizes))
        head, output = self._head(states)
        sides = [self._next(name, "Squeeze").output[0] for name in self._next(output, "Split").output]
        _need(sides == ["start_logits", "end_logits"])
        return described | {
            "heads": heads.pop(),
            "activation": activations.pop(),
            "layers": layers,
            "head": head,
        }

    def _layer(
        self, states: str, rounded: tuple[str, Any, onnx.NodeProto]
    ) -> tuple[dict[str, Any], int, str, str]:
        """One layer's tensors, its heads, its activation, and the name of what it gives."""
        _, smooth, attention = rounded
        _need(
            not any(attention.input[5:6])
            and not any(attention.input[8:])
            and not _attribute(attention, "unidirectional", 0)
        )
        _need(not self._values(attention.input[7]).any())
        qkv = self._weights(attention.input[1], attention.input[4], attention.input[2], smooth)
        out, name = self._product(attention.output[0])
        after_attention, middle = self._residual(name, states)
        up, name = self._product(middle)
        activation = self._next(name)
        _need(activation.op_type in _ACTIVATIONS)
        _need(_attribute(activation, "approximate", b"none") == b"none")
        down, name = self._product(activation.output[0])
        after_down, result = self._residual(name, middle)
        layer = {"qkv": qkv, "out": out, "up": up, "down": down}
        layer |= {"after_attention": after_attention, "after_down": after_down}
        heads = int(_attribute(attention, "num_heads"))
        return layer, heads, _ACTIVATIONS[activation.op_type], result

    def _tables(self, name: str) -> dict[str, Any]:
        """The embeddings that are added up, by what looks into them."""
        tables: dict[str, Any] = {"words": None, "positions": None, "types": None}
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
            _need(tables[kind] is None)
            tables[kind] = {
                "rows": self._place(gather.input[0], onnx.TensorProto.UINT8),
                "scale": float(self._values(node.input[1])),
                "zero": float(self._values(node.input[2])),
            }
        _need(tables["words"] is not None and tables["positions"] is not None)
        return tables

    def _need_counting(self, name: str) -> None:
        """Positions are 0, 1, 2 and so on: the front of a constant that counts."""
        node = self._maker(name)
        _need(node.op_type == "Slice")
        table = self._values(node.input[0])
        _need(bool(np.array_equal(table.ravel(), np.arange(table.size))))
        _need(self._values(node.input[1]).tolist() == [0])

    def _residual(self, added: str, states: str) -> tuple[dict[str, Any], str]:
        """The norm of a sum of both; its tensors, and the name of what it gives."""
        addition = self._next(added, "Add")
        _need(set(addition.input) == {added, states})
        norm = self._next(addition.output[0], "LayerNormalization")
        return self._norm(norm), norm.output[0]

    def _rounding(self, name: str) -> tuple[str, Any, onnx.NodeProto]:
        """How `name` is rounded for a product: the bytes' name, the factors before, and who takes them."""
        for node in self._users[name]:
            if node.op_type == "DynamicQuantizeLinear":
                return node.output[0], None, self._next(node.output[0])
            if node.op_type == "Mul" and node.input[1] in self._tensors:
                rounding = self._next(node.output[0], "DynamicQuantizeLinear")
                factors = self._place(node.input[1], onnx.TensorProto.FLOAT)
                return rounding.output[0], factors, self._next(rounding.output[0])
        raise _OtherShapeError

    def _product(self, name: str) -> tuple[dict[str, Any], str]:
        """The product that takes `name`, with its bias: its tensors, and the name of what it gives."""
        weights, scale, bias, smooth, output = self._linear(name)
        return self._weights(weights, scale, bias, smooth), output

    def _head(self, name: str) -> tuple[dict[str, Any], str]:
        """The same for the product to the logits, whose few scales are told themselves."""
        weights, scale, bias, smooth, output = self._linear(name)
        _need(smooth is None)
        return {
            "weights": self._place(weights, onnx.TensorProto.INT8),
            "scale": self._values(scale).tolist(),
            "bias": self._values(bias).tolist(),
        }, output

    def _linear(self, name: str) -> tuple[str, str, str, Any, str]:
        """Names of weights, scales, bias and result, and the factors before, of the product of `name`."""
        _, smooth, product = self._rounding(name)
        _need(product.op_type == "MatMulInteger" and not self._values(product.input[3]).any())
        scaled = self._next(self._next(product.output[0], "Cast").output[0], "Mul")
        scales = [maker for n in scaled.input if (maker := self._maker(n)).op_type == "Mul"]
        _need(len(scales) == 1)
        addition = self._next(scaled.output[0], "Add")
        biases = [name for name in addition.input if name in self._tensors]
        _need(len(biases) == 1)
        return product.input[1], scales[0].input[1], biases[0], smooth, addition.output[0]

    def _weights(self, weights: str, scale: str, bias: str, smooth: Any) -> dict[str, Any]:
        return {
            "weights": self._place(weights, onnx.TensorProto.INT8),
            "scale": self._place(scale, onnx.TensorProto.FLOAT),
            "bias": self._place(bias, onnx.TensorProto.FLOAT),
            "smooth": smooth,
        }

    def _norm(self, node: onnx.NodeProto) -> dict[str, Any]:
        return {
            "gain": self._place(node.input[1], onnx.TensorProto.FLOAT),
            "shift": self._place(node.input[2], onnx.TensorProto.FLOAT),
        }

    def _place(self, name: str, kind: int) -> list[int]:
        """Where a tensor is in the weights' file: [offset, *shape]."""
        tensor = self._tensors.get(name)
        _need(tensor is not None and tensor.data_type == kind)
        assert tensor is not None  # noqa: S101 - for the type checker
        _need(tensor.data_location == onnx.TensorProto.EXTERNAL)
        offset = next((int(e.value) for e in tensor.external_data if e.key == "offset"), 0)
        return [offset, *tensor.dims]

    def _values(self, name: str) -> Any:
        """A constant's values."""
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name], base_dir=str(self._folder))
        node = self._maker(name)
        _need(node.op_type == "Constant")
        return numpy_helper.to_array(_attribute(node, "value"))

    def _maker(self, name: str) -> onnx.NodeProto:
        node = self._makers.get(name)
        if node is None:
            raise _OtherShapeError
        return node

    def _next(self, name: str, kind: str | None = None) -> onnx.NodeProto:
        """The one node that takes `name`."""
        users: list[onnx.NodeProto] = self._users[name]
        _need(len(users) == 1 and kind in (None, users[0].op_type))
        return users[0]


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _need(condition: bool) -> None:
    if not condition:
        raise _OtherShapeError
