"""Rounding in training is that of the int8 graph, and gradients do not see it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from torch import nn

from export.finetune.rounding import RoundedLinear, round_activations, round_linear
from export.quantize import Recipe, quantize


def int8_product(layer: nn.Linear, folder: Path) -> ort.InferenceSession:
    """`layer` as ONNX Runtime runs it once it is quantized for any CPU."""
    weights = numpy_helper.from_array(layer.weight.detach().numpy().T.copy(), "weights")
    bias = numpy_helper.from_array(layer.bias.detach().numpy(), "bias")
    nodes = [
        helper.make_node("MatMul", ["in", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["out"]),
    ]
    places = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, None, size))
        for name, size in (("in", layer.in_features), ("out", layer.out_features))
    ]
    graph = helper.make_graph(nodes, "product", places[:1], places[1:], [weights, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / "fp32.onnx"))
    recipe = Recipe("per-channel", "plain", per_channel=True)
    quantize(folder / "fp32.onnx", recipe, "portable", folder / "int8.onnx")
    return ort.InferenceSession(str(folder / "int8.onnx"), providers=["CPUExecutionProvider"])


def test_a_layer_rounds_as_the_int8_graph_does(tmp_path: Path) -> None:
    torch.manual_seed(5)
    layer = nn.Linear(48, 32)
    session = int8_product(layer, tmp_path)
    plain = nn.Sequential(layer)
    windows = torch.randn(3, 20, 48) * torch.tensor([0.1, 1.0, 30.0])[:, None, None]  # a range for each
    exact = plain(windows).detach().numpy()
    round_linear(plain)
    assert isinstance(layer, RoundedLinear)
    assert list(plain.state_dict()) == ["0.weight", "0.bias"]
    rounded = plain(windows).detach().numpy()
    for window, ours, unrounded in zip(windows.numpy(), rounded, exact, strict=True):
        (theirs,) = session.run(None, {"in": window[None]})
        scale = np.abs(unrounded).max()
        assert np.abs(theirs[0] - ours).max() < 1e-4 * scale
        assert np.abs(unrounded - ours).max() > 1e-3 * scale  # there was something to round


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    torch.manual_seed(6)
    values = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(2, 5, 8)
    (round_activations(values) * weight).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, weight)


def test_nothing_but_zeros() -> None:
    assert torch.equal(round_activations(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))
