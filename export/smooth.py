"""Owns the taming of outliers before quantization; knows no int8 and no accuracy."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from service.engine.probes import probes

# A channel this many times larger than the median one takes the int8 range from all others.
_OUTLIER = 7.5
# How much of a channel's size goes from the activations into the weights (SmoothQuant's alpha).
_SHARE = 0.75

Maxima = npt.NDArray[np.float32]


def smooth(graph: Path, tokenizer: Path, question_first: bool, output: Path) -> int:
    """Write `graph` with a scale before each product whose input has outliers; returns how many.

    Dynamic quantization gives a whole tensor one scale. Dividing its channels by factors, and
    multiplying the rows of the weights by the same, leaves the product as it is and evens the
    channels out (Xiao et al. 2022). Sizes of channels are measured on the probe texts.
    """
    model = onnx.load(str(graph))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and len(getattr(weights.get(node.input[1]), "dims", ())) == 2
    ]
    maxima = _measure(model, sorted({node.input[0] for node in products}), tokenizer, question_first)
    scales = []
    for product in products:
        largest = np.maximum(maxima[product.input[0]], 1e-5)
        if largest.max() < _OUTLIER * np.median(largest):
            continue
        matrix = numpy_helper.to_array(weights[product.input[1]])  # (inner, columns)
        rows = np.maximum(np.abs(matrix).max(axis=1), 1e-5)
        factors = largest**_SHARE / rows ** (1 - _SHARE)
        factors = (factors / np.exp(np.log(factors).mean())).clip(1e-2, 1e2).astype(np.float32)
        names = [f"{product.output[0]}_smooth_{part}" for part in ("weight", "factor", "input")]
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(matrix * factors[:, None], names[0]),
                numpy_helper.from_array(1 / factors, names[1]),
            ]
        )
        scales.append((product, helper.make_node("Mul", [product.input[0], names[1]], [names[2]])))
        product.input[0], product.input[1] = names[2], names[0]
    before = {id(product): scale for product, scale in scales}
    nodes = [part for node in model.graph.node for part in (before.get(id(node)), node) if part is not None]
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    used = {name for node in ordered for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, str(output))
    return len(scales)


def _measure(
    model: onnx.ModelProto, names: list[str], tokenizer: Path, question_first: bool
) -> dict[str, Maxima]:
    """Largest absolute value of each channel, (channels,) per tensor."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    maxima: dict[str, Maxima] = {}
    for feeds in _feeds(session, tokenizer, question_first):
        for name, values in zip(names, session.run(names, feeds), strict=True):
            found = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
            maxima[name] = np.maximum(maxima.get(name, found), found)
    return maxima


def _feeds(
    session: ort.InferenceSession, file: Path, question_first: bool
) -> Iterator[dict[str, npt.NDArray[np.int64]]]:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(384)
    wanted = [value.name for value in session.get_inputs()]
    for question, context in probes():
        pair = (question, context) if question_first else (context, question)
        encoding = tokenizer.encode(*pair)
        given = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        yield {name: np.array([given[name]], dtype=np.int64) for name in wanted}
