"""Owns the int8 recipes and their application to a graph; knows no accuracy and no speed."""

import logging
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.registry import IntegerOpsRegistry

from export import storage

# Without VNNI, x86 CPUs accumulate pairs of u8 x s8 products in 16 bits, which saturate unless weights use
# only 7 bits. arm64 and VNNI accumulate in 32 bits and allow 8.
_REDUCED_RANGE = {"portable": True, "avx2": True, "avx512_vnni": False, "arm64": False}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to produce model.onnx.

    `graph` is the input: "plain" as converted, "fused" with ONNX Runtime's attention, or "split" with the
    standard's. `per_channel` quantizes weights with a scale per output channel; `smooth` applies SmoothQuant
    to the activations first.
    """

    name: str
    graph: str
    per_channel: bool = False
    smooth: bool = False


FP32 = (Recipe("plain-fp32", "plain"), Recipe("fused-fp32", "fused"))
# Add candidates here.
INT8 = (
    Recipe("plain-int8-per-tensor", "plain"),
    Recipe("plain-int8-per-channel", "plain", per_channel=True),
    Recipe("fused-int8-per-tensor", "fused"),
    Recipe("fused-int8-per-channel", "fused", per_channel=True),
    Recipe("plain-int8-smooth", "plain", per_channel=True, smooth=True),
    Recipe("fused-int8-smooth", "fused", per_channel=True, smooth=True),
    Recipe("split-int8-per-channel", "split", per_channel=True),
    Recipe("split-int8-smooth", "split", per_channel=True, smooth=True),
)


def quantize(source: Path, recipe: Recipe, target: str, output: Path) -> None:
    """Write the graph `source` with int8 weights and dynamically quantized activations (ONNX Runtime)."""
    logging.getLogger().setLevel(logging.ERROR)  # the library warns through the root logger
    # ONNX Runtime's Attention has weights; the standard's, with the same name, has none.
    kinds = [kind for kind in IntegerOpsRegistry if recipe.graph != "split" or kind != "Attention"]
    quantize_dynamic(
        str(source),
        str(output),
        op_types_to_quantize=kinds,
        per_channel=recipe.per_channel,
        reduce_range=_REDUCED_RANGE[target],
        use_external_data_format=True,
        weight_type=QuantType.QInt8,
        # Fused graphs have tensors whose type cannot be inferred; all are float.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def strip(file: Path) -> None:
    """Remove metadata about the origin of a graph, for reproducible output."""
    model = storage.load(file, weights=False)
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.name = "question-answering"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    storage.save_nodes(model, file)
