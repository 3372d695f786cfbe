"""Owns the fusion of a plain graph into ONNX Runtime's transformer kernels; knows no weights' type."""

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

# Architectures whose attention the BERT patterns recognise. For the others ONNX Runtime's own
# rewriting at load time is all there is.
_BERT_LIKE = {"bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert"}

_MASK = 3  # the Attention operator's input for it


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
    model.save_model_to_file(str(output))
    return True


def drop_mask(fused: Path) -> None:
    """Take the attention mask out of a fused graph that will only ever run one window at a time.

    Nothing is padded then, so the mask is all ones and changes nothing; turned into a bias for every
    head of every layer it took 4 to 6% of a 6-layer int8 model's time.
    """
    model = onnx.load(str(fused))
    for node in model.graph.node:
        if node.op_type == "Attention" and len(node.input) > _MASK:
            node.input[_MASK] = ""
    drop_idle(model)
    onnx.save(model, str(fused))


def drop_idle(model: onnx.ModelProto) -> None:
    """Remove the nodes whose results nothing uses, and a mask that none is left to read."""
    outputs = {value.name for value in model.graph.output}
    while True:
        used = outputs.union(*(node.input for node in model.graph.node))
        idle = [node for node in model.graph.node if not used.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
    for value in [value for value in model.graph.input if value.name == "attention_mask"]:
        if value.name not in used:
            model.graph.input.remove(value)
