"""Owns the named int8 recipes and their application to a graph; knows no accuracy and no speed."""

import logging
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.registry import IntegerOpsRegistry

from export import storage

# u8 x s8 sums of two products saturate 16 bits on x86 CPUs without VNNI, unless weights keep to 7
# bits. arm64 and VNNI sum in 32 bits and take all 8.
_REDUCED_RANGE = {"portable": True, "avx2": True, "avx512_vnni": False, "arm64": False}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make model.onnx.

    `graph` is what it starts from: "plain" as converted, "fused" with ONNX Runtime's attention or
    "split" with ONNX's. `per_channel` gives every output of a weight its own scale; `smooth` evens
    out the channels of the activations before.
    """

    name: str
    graph: str
    per_channel: bool = False
    smooth: bool = False


FP32 = (Recipe("plain-fp32", "plain"), Recipe("fused-fp32", "fused"))
# Further candidates are further rows.
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
    logging.getLogger().setLevel(logging.ERROR)  # it warns through the root logger
    # ONNX Runtime's Attention holds weights; the standard's, of the same name, only looks like it.
    kinds = [kind for kind in IntegerOpsRegistry if recipe.graph != "split" or kind != "Attention"]
    quantize_dynamic(
        str(source),
        str(output),
        op_types_to_quantize=kinds,
        per_channel=recipe.per_channel,
        reduce_range=_REDUCED_RANGE[target],
        use_external_data_format=True,
        weight_type=QuantType.QInt8,
        # Fused graphs hold tensors whose type cannot be inferred; they are all float.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def strip(file: Path) -> None:
    """Remove what says where and when a graph was made, so that equal work gives equal bytes."""
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
