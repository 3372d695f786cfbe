"""A random int8 BERT encoder: its graph of one custom node, and its logits in NumPy's float64."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.engine.artifact import Artifact, load_artifact
from service.engine.kernel import KERNEL
from service.engine.session import Session
from service.engine.windowing import Window

Floats = npt.NDArray[np.float64]
WORDS, POSITIONS = 300, 512


class RandomEncoder:
    """A random encoder: its graph of one node, and its reference logits by NumPy."""

    def __init__(
        self, folder: Path, hidden: int, inner: int, heads: int, layers: int, activation: str
    ) -> None:
        self.random = np.random.default_rng(hidden + inner)
        self.inputs: dict[str, npt.NDArray[Any]] = {}  # initializers in the node's order
        self.heads, self.activation = heads, activation
        self.tables = {
            "words": self.table(WORDS, hidden),
            "positions": self.table(POSITIONS, hidden),
            "types": self.table(2, hidden),
        }
        self.first = self.norm(hidden)
        head = self.put(self.random.integers(-60, 60, (hidden, 2)).astype(np.int8))
        scale = self.put(np.array([0.01, 0.02], dtype=np.float32))
        self.head = head * scale.astype(float), self.put(np.array([0.3, -0.2], dtype=np.float32))
        self.layers = []
        smoothed = []
        for number in range(layers):
            flags = [number == 0, False, True, number == 1]
            smoothed += [int(flag) for flag in flags]
            self.layers.append(
                {
                    "qkv": self.product(hidden, 3 * hidden, smooth=flags[0], size=2.0),
                    "out": self.product(hidden, hidden),
                    "up": self.product(hidden, inner, smooth=flags[2]),
                    "down": self.product(inner, hidden, smooth=flags[3]),
                    "after_attention": self.norm(hidden),
                    "after_feed_forward": self.norm(hidden),
                }
            )
        self.attributes: dict[str, Any] = {
            "heads": heads,
            "layers": layers,
            "types": 1,
            "relu": int(activation == "relu"),
            "epsilon": 1e-12,
            "table_scale": [0.01] * 3,
            "table_zero_point": [120.0] * 3,
            "smoothed": smoothed,
        }
        tiny = load_artifact(Path(__file__).parent / "models/tiny-int8")
        files = tiny.manifest["files"] | {"model.avx512_vnni.onnx": {}}
        self.artifact: Artifact = replace(
            tiny, path=folder, max_length=POSITIONS, manifest=tiny.manifest | {"files": files}
        )
        self.save()

    def save(self) -> Path:
        """Write the graph with the current inputs and attributes."""
        ids = ["input_ids", "token_type_ids"]
        outputs = ["start_logits", "end_logits"]
        node = helper.make_node(
            "Int8Encoder", [*ids, *self.inputs], outputs, domain="qa_onnx", **self.attributes
        )
        graph = helper.make_graph(
            [node],
            "made",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ids],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "t"]) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self.inputs.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qa_onnx", 1)]
        file = self.artifact.path / "model.avx512_vnni.onnx"
        onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(file))
        return file

    def session(self, threads: int) -> Session:
        made = Session(self.artifact, threads=threads, token_budget=1, concurrent=True)
        assert made.graph.name == KERNEL
        return made

    def put(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.inputs[f"input_{len(self.inputs)}"] = values
        return values

    def table(self, count: int, hidden: int) -> Floats:
        rows = self.put(self.random.integers(0, 256, (count, hidden)).astype(np.uint8))
        values: Floats = 0.01 * (rows.astype(float) - 120.0)
        return values

    def norm(self, hidden: int) -> tuple[Floats, Floats]:
        gamma = self.put(self.random.uniform(0.5, 1.5, hidden).astype(np.float32))
        beta = self.put(self.random.normal(0, 0.3, hidden).astype(np.float32))
        return gamma.astype(float), beta.astype(float)

    def product(
        self, inner: int, columns: int, smooth: bool = False, size: float = 1.0
    ) -> tuple[Floats, Floats]:
        weights = self.put(self.random.integers(-127, 128, (inner, columns)).astype(np.int8))
        scale = self.random.uniform(0.5, 1.5, columns) * size / 127 / math.sqrt(inner)
        whole: Floats = weights * self.put(scale.astype(np.float32)).astype(float)
        bias = self.put(self.random.normal(0, 0.5, columns).astype(np.float32))
        if smooth:
            factors = self.put(self.random.uniform(0.5, 2.0, inner).astype(np.float32))
            whole = whole * factors.astype(float)[:, None]
        return whole, bias.astype(float)

    def logits(self, window: Window) -> Floats:
        """Start and end logits, (2, tokens)."""
        positions = np.arange(len(window.ids))
        looked = {"words": window.ids, "positions": positions, "types": window.types}
        x = np.sum([self.tables[name][rows] for name, rows in looked.items()], axis=0)
        x = _norm(x, self.first)
        for layer in self.layers:
            query, key, value = (
                part.reshape(len(x), self.heads, -1).transpose(1, 0, 2)  # (heads, tokens, width)
                for part in np.split(_apply(x, layer["qkv"]), 3, axis=1)
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[2])
            probabilities = np.exp(scores - scores.max(axis=2, keepdims=True))
            context = probabilities / probabilities.sum(axis=2, keepdims=True) @ value
            context = context.transpose(1, 0, 2).reshape(len(x), -1)
            x = _norm(x + _apply(context, layer["out"]), layer["after_attention"])
            wide = _apply(x, layer["up"])
            if self.activation == "gelu":
                wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            else:
                wide = np.maximum(wide, 0)
            x = _norm(x + _apply(wide, layer["down"]), layer["after_feed_forward"])
        logits: Floats = (x @ self.head[0] + self.head[1]).T
        return logits

    def window(self, tokens: int) -> Window:
        random = np.random.default_rng(tokens)
        ids = random.integers(0, WORDS, tokens)
        types = (np.arange(tokens) > tokens // 3).astype(np.int64)
        return Window(ids, types, context_at=1, cls_at=0, first=0, last=max(tokens - 2, 0))


def _apply(x: Floats, product: tuple[Floats, Floats]) -> Floats:
    return x @ product[0] + product[1]


def _norm(x: Floats, norm: tuple[Floats, Floats]) -> Floats:
    mean, spread = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    normed: Floats = (x - mean) / spread * norm[0] + norm[1]
    return normed
