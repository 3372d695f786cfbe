"""Owns the shape of the graph: attention as one operator, nothing that is not needed; knows no int8."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from export import storage

# Architectures whose attention the BERT patterns recognise. For the others ONNX Runtime's own
# rewriting at load time is all there is.
_BERT_LIKE = {"bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert"}

_MASK = 3  # the input for it of ONNX Runtime's Attention
_STANDARD_ATTENTION = 23  # the first opset of ONNX with an Attention


def fusible(architecture: str) -> bool:
    """Whether there are patterns for this model type at all."""
    return architecture in _BERT_LIKE


def fuse(plain: Path, config: dict[str, Any], output: Path) -> bool:
    """Write the fused graph; False, and no file, where not one attention was recognised."""
    options = FusionOptions("bert")
    # Attention alone is worth a kernel of its own. These kernels are slower than the operators they
    # replace: SkipLayerNormalization took 7 times its addition and LayerNormalization (1.32).
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
        opt_level=0,  # the graph itself; what ONNX Runtime does at load it will do anyway
    )
    found = model.get_fused_operator_statistics()
    if not any(found.get(kind) for kind in ("Attention", "MultiHeadAttention")):
        return False
    model.save_model_to_file(str(output), use_external_data_format=True)
    return True


def drop_mask(fused: Path) -> None:
    """Take the attention mask out of a fused graph that will only ever run one window at a time.

    Nothing is padded then, so the mask is all ones and changes nothing; turned into a bias for every
    head of every layer it took 4 to 6% of a 6-layer int8 model's time.
    """
    model = storage.load(fused)
    for node in model.graph.node:
        if node.op_type == "Attention" and len(node.input) > _MASK:
            node.input[_MASK] = ""
    drop_idle(model)
    storage.save(model, fused)


def split(fused: Path, output: Path) -> bool:
    """Write a fused graph without a mask with ONNX's own Attention, on products of its own.

    ONNX Runtime's operator makes query, key and value itself, each head in a product of its own:
    2% more of a 6-layer int8 model's time. False, and no file, where an attention is more than that.
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
    """Whether this is softmax(QK/sqrt(d))V of one input, its weights known, and nothing else."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    return (
        set(attributes) <= {"num_heads", "unidirectional", "mask_filter_value"}
        and not ("unidirectional" in attributes and attributes["unidirectional"].i)
        and node.input[1] in tensors
        and node.input[2] in tensors
        and not any(node.input[_MASK:])
    )


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> None:
    """Put query, key and value as three products, and the standard's Attention, in the place of `node`."""
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
    """Remove what nothing uses: nodes, then weights, and a mask that none is left to read."""
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
