"""Owns the fusion of a plain graph into ONNX Runtime's transformer kernels; knows no weights' type."""

from pathlib import Path
from typing import Any

from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

# Architectures whose attention the BERT patterns recognise. For the others ONNX Runtime's own
# rewriting at load time is all there is.
_BERT_LIKE = {"bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert"}


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
