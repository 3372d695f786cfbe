"""Smoothing scales outlier channels without changing the function of the graph."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from export.optimize import drop_idle
from export.smooth import smooth
from service.engine.probes import probes
from tests.export.conftest import ROOT

TINY = ROOT / "tests/models/tiny-fp32"


def assert_same(graph: Path, smoothed: Path) -> None:
    ids = np.arange(5, 90, dtype=np.int64)[None]
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    sessions = [ort.InferenceSession(str(f), providers=["CPUExecutionProvider"]) for f in (graph, smoothed)]
    for before, after in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_smoothing_preserves_the_function(tmp_path: Path) -> None:
    model = onnx.load(str(TINY / "model.onnx"))
    # An outlier as in trained models: one channel of a layer norm is 50 times the others.
    (gain,) = (t for t in model.graph.initializer if t.name == "bert.embeddings.LayerNorm.weight")
    values = numpy_helper.to_array(gain).copy()
    values[3] *= 50
    gain.CopyFrom(numpy_helper.from_array(values, gain.name))
    graph, smoothed = tmp_path / "graph.onnx", tmp_path / "smoothed.onnx"
    onnx.save(model, str(graph))
    scaled = smooth(graph, TINY / "tokenizer.json", True, smoothed)
    assert scaled >= 3  # query, key and value of the first layer at least
    kinds = [[node.op_type for node in onnx.load(str(f)).graph.node] for f in (graph, smoothed)]
    assert kinds[1].count("Mul") == kinds[0].count("Mul") + scaled
    assert_same(graph, smoothed)


def test_smoothing_is_folded_after_a_relu(tmp_path: Path) -> None:
    model = onnx.load(str(TINY / "model.onnx"))
    # Replace GELU, x/2 (1 + erf(x/sqrt 2)), by ReLU in its last node; its other nodes become unused.
    for start in [node for node in model.graph.node if node.op_type == "Erf"]:
        (division,) = (n for n in model.graph.node if n.output[0] == start.input[0])
        source = division.input[0]
        at = list(model.graph.node).index(start)
        last = [n for n in list(model.graph.node)[at : at + 6] if n.op_type == "Mul"][-1]
        last.CopyFrom(helper.make_node("Relu", [source], [last.output[0]]))
    drop_idle(model)
    graph, smoothed = tmp_path / "graph.onnx", tmp_path / "smoothed.onnx"
    onnx.save(model, str(graph))
    # Folded even without outliers; not in the second layer, whose bias has a node of its own.
    assert smooth(graph, TINY / "tokenizer.json", True, smoothed) == 1
    kinds = [sorted(node.op_type for node in onnx.load(str(f)).graph.node) for f in (graph, smoothed)]
    assert kinds[0] == kinds[1]
    assert_same(graph, smoothed)


def test_a_graph_without_outliers_is_unchanged(tmp_path: Path) -> None:
    assert len(probes()) > 20
    output = tmp_path / "same.onnx"
    graph = tmp_path / "graph.onnx"
    onnx.save(onnx.load(str(TINY / "model.onnx")), str(graph))
    assert smooth(graph, TINY / "tokenizer.json", True, output) == 0
