"""Owns graph optimization: fused attention, dead code elimination; knows no int8."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from export import storage

# Architectures whose attention matches the BERT patterns. The others only get ONNX Runtime's
# optimizations at load time.
_BERT_LIKE = {"bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert"}

_MASK = 3  # index of the mask input of ONNX Runtime's Attention
_STANDARD_ATTENTION = 23  # first opset with the standard's Attention


def fusible(architecture: str) -> bool:
    """Whether there are fusion patterns for this model type."""
    return architecture in _BERT_LIKE


def fuse(plain: Path, config: dict[str, Any], output: Path) -> bool:
    """Write the fused graph; False, without a file, if no attention matched."""
    options = FusionOptions("bert")
    # Only fused attention is faster. Other fused kernels are slower than the operators they replace:
    # SkipLayerNormalization took 7 times as long as Add and LayerNormalization (ONNX Runtime 1.32).
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    options.enable_embed_layer_norm = False
    options.enable_bias_gelu = False  # the bias is part of the int8 product
    model = optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.get("num_attention_heads") or config.get("n_heads") or 0,
        hidden_size=config.get("hidden_size") or config.get("dim") or 0,
        optimization_options=options,
        opt_level=0,  # no further optimizations here: ONNX Runtime applies its own at load time
    )
    found = model.get_fused_operator_statistics()
    if not any(found.get(kind) for kind in ("Attention", "MultiHeadAttention")):
        return False
    model.save_model_to_file(str(output), use_external_data_format=True)
    return True


def drop_mask(fused: Path) -> None:
    """Remove the attention mask from a fused graph that will always run with batch size 1.

    Without padding the mask is all ones and has no effect; converting it into a bias for every head of every
    layer took 4 to 6% of the time of a 6-layer int8 model.
    """
    model = storage.load(fused)
    for node in model.graph.node:
        if node.op_type == "Attention" and len(node.input) > _MASK:
            node.input[_MASK] = ""
    drop_idle(model)
    storage.save(model, fused)


def split(fused: Path, output: Path) -> bool:
    """Write a fused graph without a mask with the ONNX standard's Attention and separate projections.

    ONNX Runtime's operator computes the Q, K and V projections itself, per head: 2% more time for a 6-layer
    int8 model. False, without a file, if an attention is not of this form.
    """
    model = storage.load(fused)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Attention"]
    if not nodes or not all(_is_plain(node, tensors) for node in nodes):
        return False
    for node in nodes:
        _replace(model, node, tensors)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, _STANDARD_ATTENTION)
    drop_idle(model)
    storage.save(model, output)
    return True


def _is_plain(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether this is softmax(QK/sqrt(d))V of a single input with constant weights, and nothing else."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    return (
        set(attributes) <= {"num_heads", "unidirectional", "mask_filter_value"}
        and not ("unidirectional" in attributes and attributes["unidirectional"].i)
        and node.input[1] in tensors
        and node.input[2] in tensors
        and not any(node.input[_MASK:])
    )


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> None:
    """Replace `node` with three projections and the standard's Attention."""
    heads = next(attribute.i for attribute in node.attribute if attribute.name == "num_heads")
    weights = np.split(numpy_helper.to_array(tensors[node.input[1]]), 3, axis=1)  # (hidden, hidden) each
    biases = np.split(numpy_helper.to_array(tensors[node.input[2]]), 3)
    nodes, parts = [], []
    for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        name = f"{node.output[0]}_{part}"
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.ascontiguousarray(weight), f"{name}_weight"),
                numpy_helper.from_array(bias.copy(), f"{name}_bias"),
            ]
        )
        nodes.append(helper.make_node("MatMul", [node.input[0], f"{name}_weight"], [f"{name}_product"]))
        nodes.append(helper.make_node("Add", [f"{name}_bias", f"{name}_product"], [name]))
        parts.append(name)
    nodes.append(
        helper.make_node("Attention", parts, [node.output[0]], q_num_heads=heads, kv_num_heads=heads)
    )
    at = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for offset, new in enumerate(nodes):
        model.graph.node.insert(at + offset, new)


def drop_idle(model: onnx.ModelProto) -> None:
    """Dead code elimination: unused nodes, then unused weights, and an unused mask input."""
    outputs = {value.name for value in model.graph.output}
    while True:
        used = outputs.union(*(node.input for node in model.graph.node))
        idle = [node for node in model.graph.node if not used.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    for value in [value for value in model.graph.input if value.name == "attention_mask"]:
        if value.name not in used:
            model.graph.input.remove(value)
