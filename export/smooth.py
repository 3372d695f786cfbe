"""Owns activation smoothing before quantization (SmoothQuant); knows no int8 and no accuracy."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from tokenizers import Tokenizer

from export import storage
from service.engine.probes import probes

# A channel is an outlier if its maximum exceeds the median one by this factor.
_OUTLIER = 7.5
# Migration strength between activations and weights (SmoothQuant's alpha).
_SHARE = 0.75

Maxima = npt.NDArray[np.float32]
Weights = dict[str, npt.NDArray[np.float32]]


def smooth(graph: Path, tokenizer: Path, question_first: bool, output: Path) -> int:
    """Write `graph` with smoothed inputs of matrix products; returns the number of smoothed products.

    Dynamic quantization uses one scale per tensor. Dividing its channels by factors, and multiplying the rows
    of the weights by them, preserves the product and equalizes the channels (Xiao et al. 2022). Channel
    maxima are measured on the probe texts.

    After a ReLU, which commutes with positive factors, the division is folded into the preceding weights at
    no cost. Elsewhere it is an additional multiplication, inserted only for outliers.
    """
    model = storage.load(graph, weights=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights: Weights = {}  # the new ones

    def known(name: str) -> Maxima:
        return weights[name] if name in weights else storage.values(tensors[name], graph)

    products = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and len(getattr(tensors.get(node.input[1]), "dims", ())) == 2
    ]
    maxima = _measure(graph, sorted({node.input[0] for node in products}), tokenizer, question_first)
    scales: dict[int, onnx.NodeProto] = {}  # the multiplication before a product
    count = 0
    for product in products:
        largest = np.maximum(maxima[product.input[0]], 1e-5)
        before = _foldable(model, tensors.keys() | weights.keys(), product)
        if not before and largest.max() < _OUTLIER * np.median(largest):
            continue
        count += 1
        matrix = known(product.input[1])  # (inner, columns)
        factors = _factors(largest, matrix)
        scaled, factor, divided = (
            f"{product.output[0]}_smooth_{part}" for part in ("weight", "factor", "input")
        )
        product.input[1] = scaled
        weights[scaled] = matrix * factors[:, None]
        for node, index in before:  # (..., inner)
            divided_name = f"{node.output[0]}_smooth_divided"
            weights[divided_name] = np.asarray(known(node.input[index]) / factors, dtype=np.float32)
            node.input[index] = divided_name
        if not before:
            weights[factor] = np.reciprocal(factors)
            scales[id(product)] = helper.make_node("Mul", [product.input[0], factor], [divided])
            product.input[0] = divided
    _rewrite(model, weights, scales)
    load_external_data_for_model(model, str(graph.parent))
    storage.save(model, output)
    return count


def _factors(largest: Maxima, matrix: Maxima) -> Maxima:
    """Divisor of each channel, (inner,), with geometric mean 1."""
    rows = np.maximum(np.abs(matrix).max(axis=1), 1e-5)
    factors = largest**_SHARE / rows ** (1 - _SHARE)
    return np.asarray((factors / np.exp(np.log(factors).mean())).clip(1e-2, 1e2), dtype=np.float32)


def _foldable(
    model: onnx.ModelProto, constants: AbstractSet[str], product: onnx.NodeProto
) -> list[tuple[onnx.NodeProto, int]]:
    """Node inputs into which the division can be folded: those of a preceding MatMul, Add, Relu."""
    makers = {node.output[0]: node for node in model.graph.node}
    users = Counter(name for node in model.graph.node for name in node.input)
    users.update(value.name for value in model.graph.output)
    found: list[tuple[onnx.NodeProto, int]] = []
    name = product.input[0]
    for kind in ("Relu", "Add", "MatMul"):
        node = makers.get(name)
        if node is None or node.op_type != kind or users[name] != 1:
            return []
        fixed = [index for index, other in enumerate(node.input) if other in constants]
        if len(node.input) - len(fixed) != 1 or (kind == "MatMul" and fixed != [1]):
            return []
        found += [(node, index) for index in fixed]
        (name,) = (other for other in node.input if other not in constants)
    return found


def _rewrite(model: onnx.ModelProto, weights: Weights, scales: dict[int, onnx.NodeProto]) -> None:
    """Insert new nodes before their products, replace weights, and drop unused ones."""
    nodes = [part for node in model.graph.node for part in (scales.get(id(node)), node) if part is not None]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used - weights.keys()]
    kept += [numpy_helper.from_array(values, name) for name, values in weights.items() if name in used]
    # Copies: clearing a field frees what it holds.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)


def _measure(graph: Path, names: list[str], tokenizer: Path, question_first: bool) -> dict[str, Maxima]:
    """Maximum absolute value per channel, (channels,) per tensor."""
    model = storage.load(graph, weights=False)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    watched = graph.with_suffix(".watched.onnx")  # shares the weights file of `graph`
    storage.save_nodes(model, watched)
    session = ort.InferenceSession(str(watched), providers=["CPUExecutionProvider"])
    watched.unlink()
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
