"""The custom operator against the same encoder in NumPy's float64, at many lengths and numbers of threads."""

import ctypes
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.engine import session
from service.engine.artifact import Artifact, load_artifact
from service.engine.kernel import KERNEL, LIBRARY, PORTABLE, choose_graph
from service.engine.session import Session
from service.engine.windowing import Window, WindowLogits
from service.settings import DEFAULT_MODEL

DEFAULT = load_artifact(DEFAULT_MODEL)
pytestmark = pytest.mark.skipif(choose_graph(DEFAULT).name != KERNEL, reason=choose_graph(DEFAULT).reason)
Floats = npt.NDArray[np.float64]
WORDS, POSITIONS = 300, 512
# (hidden, inner, heads, layers, activation)
SHAPES = [
    (64, 128, 4, 2, "gelu"),  # heads of 16
    (128, 192, 4, 3, "relu"),  # of 32
    (192, 64, 4, 1, "gelu"),  # of 48
    (128, 256, 2, 2, "gelu"),  # of 64
]


class Made:
    """A random encoder: its graph of one node, and its logits by NumPy."""

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
        tiny = load_artifact(Path(__file__).parents[1] / "models/tiny-int8")
        files = tiny.manifest["files"] | {"model.avx512_vnni.onnx": {}}
        self.artifact: Artifact = replace(
            tiny, path=folder, max_length=POSITIONS, manifest=tiny.manifest | {"files": files}
        )
        self.save()

    def save(self) -> Path:
        """Write the graph as it is described at this moment."""
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
        """(2, tokens)"""
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


def same(a: WindowLogits, b: WindowLogits) -> bool:
    return np.array_equal(a.start, b.start) and np.array_equal(a.end, b.end)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_it_computes_the_encoder(shape: tuple[int, int, int, int, str], tmp_path: Path) -> None:
    made = Made(tmp_path, *shape)
    encoder = made.session(threads=2)
    spread = made.logits(made.window(200)).std()
    errors = []
    for tokens in (1, 2, 3, 5, 16, 63, 64, 65, 97, 128, 200, 383, 512):
        window = made.window(tokens)
        (found,) = encoder.run([window])
        error = np.array([found.start, found.end]) - made.logits(window)
        assert np.sqrt(np.mean(error**2)) < 0.15 * spread, tokens
        errors.append(error.ravel())
    # Activations keep 8 bits, so a logit is off by some hundredths of the logits' spread.
    assert np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 0.03 * spread


def test_results_do_not_depend_on_threads_or_earlier_runs(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[1])
    windows = [made.window(tokens) for tokens in (512, 1, 300, *range(2, 140, 3), 71, 77)]
    expected = [made.session(threads=1).run([window])[0] for window in windows]
    for threads in (2, 3, 5):
        encoder = made.session(threads)
        for narrow in (False, True):
            found = encoder.run(windows, narrow=narrow)
            assert all(map(same, found, expected))


def test_windows_of_one_batch_do_not_change_each_other(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    windows = [made.window(40), replace(made.window(40), ids=made.window(40).ids[::-1].copy())]
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    raw = ort.InferenceSession(str(made.save()), options)
    feeds = {
        "input_ids": np.stack([window.ids for window in windows]),
        "token_type_ids": np.stack([window.types for window in windows]),
    }
    found = raw.run(["start_logits", "end_logits"], feeds)
    for row, expected in enumerate(made.session(threads=2).run(windows)):
        assert same(WindowLogits(found[0][row], found[1][row]), expected)


def test_concurrent_runs(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    encoder = made.session(threads=3)
    windows = [made.window(tokens) for tokens in (1, 2, 3, 20, 40, 90)]
    expected = encoder.run(windows)
    right: list[bool] = []

    def ask(narrow: bool) -> None:  # runs of microseconds, so that calls meet others that end
        right.extend(all(map(same, encoder.run(windows, narrow=narrow), expected)) for _ in range(500))

    callers = [threading.Thread(target=ask, args=(number == 0,), daemon=True) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert right == [True] * 3000


def test_equal_weights_are_packed_once_a_process(tmp_path: Path) -> None:
    """Two shapes of a session, and a session that replaces another, share them; other weights are apart."""
    packed = ctypes.CDLL(str(LIBRARY)).qa_packed_models
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = Made(tmp_path / "a", *SHAPES[3]), Made(tmp_path / "b", *SHAPES[3])
    last = list(other.inputs)[-1]
    other.inputs[last] = other.inputs[last] + 1
    other.save()
    before = packed()
    first = one.session(threads=2)
    assert packed() == before + 1
    again = one.session(threads=1)
    assert packed() == before + 1
    different = other.session(threads=1)
    assert packed() == before + 2
    window = one.window(30)
    expected = first.run([window])[0]
    assert not same(different.run([window])[0], expected)
    del first, different
    assert packed() == before + 1
    assert same(again.run([window])[0], expected)
    del again
    assert packed() == before


def test_ids_beyond_the_tables_are_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    encoder = made.session(threads=1)
    good = made.window(8)
    for ids, types in (
        (good.ids + WORDS, good.types),
        (good.ids - WORDS, good.types),
        (good.ids, good.types + 2),
    ):
        with pytest.raises(Exception, match="an id is not in its table"):
            encoder.run([replace(good, ids=ids, types=types)])
    with pytest.raises(Exception, match="too many tokens"):
        encoder.run([made.window(POSITIONS + 1)])


@pytest.mark.parametrize(
    ("attributes", "inputs"),
    [
        ({"heads": 64}, {}),
        ({"heads": 3}, {}),
        ({"heads": -1}, {}),
        ({"heads": 0}, {}),
        ({"layers": 0}, {}),
        ({"layers": 3}, {}),
        ({"layers": 64}, {}),
        ({"types": 0}, {}),
        ({"relu": 2}, {}),
        ({"table_scale": [0.01]}, {}),
        ({"smoothed": [1]}, {}),
        ({"smoothed": [0] * 8}, {}),
        ({}, {3: np.zeros(63, dtype=np.float32)}),
        ({}, {3: np.zeros((64, 1), dtype=np.float32)}),
        ({}, {0: np.zeros((300, 60), dtype=np.uint8)}),
        ({}, {0: np.zeros((300, 64), dtype=np.int8)}),
        ({}, {5: np.zeros((64, 3), dtype=np.int8)}),
    ],
)
def test_an_invalid_node_falls_back_to_the_portable_graph(
    attributes: dict[str, Any], inputs: dict[int, npt.NDArray[Any]], tmp_path: Path, caplog: Any
) -> None:
    made = Made(tmp_path, *SHAPES[0])
    made.attributes |= attributes
    for index, values in inputs.items():
        made.inputs[f"input_{index}"] = values
    made.save()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).write_bytes((Path(__file__).parents[1] / "models/tiny-int8" / name).read_bytes())
    loaded = Session(made.artifact, threads=1, token_budget=1, concurrent=False)
    assert loaded.graph.name == PORTABLE
    assert "Int8Encoder" in loaded.graph.reason
    assert "\n" not in loaded.graph.reason
    assert "The portable graph runs the model" in caplog.text


def test_an_invalid_library_falls_back_to_the_portable_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    library = tmp_path / "operator.so"
    library.write_bytes(b"\x7fELF but no more")
    monkeypatch.setattr(session, "LIBRARY", library)
    loaded = Session(DEFAULT, threads=1, token_budget=1, concurrent=False)
    assert loaded.graph.name == PORTABLE
    assert "operator.so" in loaded.graph.reason
    assert "The portable graph runs the model" in caplog.text


def test_the_default_model_has_both_graphs() -> None:
    assert choose_graph(DEFAULT).name == KERNEL
    assert choose_graph(DEFAULT, enabled=False).name == PORTABLE


def test_a_graph_that_is_not_in_the_manifest_is_ignored(tmp_path: Path) -> None:
    """Nobody has verified it."""
    made = Made(tmp_path, *SHAPES[0])
    files = {name: facts for name, facts in made.artifact.manifest["files"].items() if "avx512" not in name}
    unlisted = replace(made.artifact, manifest=made.artifact.manifest | {"files": files})
    assert choose_graph(unlisted).name == PORTABLE
    assert "has no model.avx512_vnni.onnx" in choose_graph(unlisted).reason
