"""The kernel against the same encoder in NumPy's float64, at every length, with any number of threads."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.engine import native
from service.engine.artifact import Artifact, load_artifact
from service.engine.encoder import Encoder
from service.engine.windowing import Window, WindowLogits
from service.errors import ArtifactError
from service.settings import DEFAULT_MODEL

pytestmark = pytest.mark.skipif(
    native.encoder() is None, reason="the kernel is not compiled, or this CPU has no AVX-512 VNNI"
)
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
    """A random encoder: its folder, and its logits by NumPy."""

    def __init__(
        self, folder: Path, hidden: int, inner: int, heads: int, layers: int, activation: str
    ) -> None:
        self.random = np.random.default_rng(hidden + inner)
        self.data = bytearray()
        self.heads, self.activation = heads, activation
        self.tables = {
            "words": self.table(WORDS, hidden),
            "positions": self.table(POSITIONS, hidden),
            "types": self.table(2, hidden),
        }
        self.first = self.norm(hidden)
        self.layers = [
            {
                "qkv": self.product(hidden, 3 * hidden, smooth=number == 0, size=2.0),
                "out": self.product(hidden, hidden),
                "up": self.product(hidden, inner, smooth=True),
                "down": self.product(inner, hidden, smooth=number == 1),
                "after_attention": self.norm(hidden),
                "after_down": self.norm(hidden),
            }
            for number in range(layers)
        ]
        head = self.random.integers(-60, 60, (hidden, 2)).astype(np.int8)
        scale, bias = [0.01, 0.02], [0.3, -0.2]
        self.head = head * np.array(scale), np.array(bias)
        described = {
            "hidden": hidden,
            "heads": heads,
            "epsilon": 1e-12,
            "activation": activation,
            "tables": {name: table[0] for name, table in self.tables.items()},
            "after_embedding": self.first[0],
            "layers": [{name: part[0] for name, part in layer.items()} for layer in self.layers],
            "head": {"weights": self.put(head), "scale": scale, "bias": bias},
        }
        (folder / "model.onnx.data").write_bytes(self.data)
        (folder / "encoder.json").write_text(json.dumps(described))
        tiny = load_artifact(Path(__file__).parents[1] / "models/tiny-int8")
        files = tiny.manifest["files"] | {"encoder.json": {}}
        manifest = tiny.manifest | {"files": files}
        self.artifact: Artifact = replace(tiny, path=folder, max_length=POSITIONS, manifest=manifest)

    def put(self, values: npt.NDArray[Any]) -> list[int]:
        place = [len(self.data), *values.shape]
        self.data += values.tobytes()
        return place

    def table(self, count: int, hidden: int) -> tuple[dict[str, Any], Floats]:
        rows = self.random.integers(0, 256, (count, hidden)).astype(np.uint8)
        values: Floats = 0.01 * (rows.astype(float) - 120.0)
        return {"rows": self.put(rows), "scale": 0.01, "zero": 120.0}, values

    def norm(self, hidden: int) -> tuple[dict[str, Any], tuple[Floats, Floats]]:
        gain = self.random.uniform(0.5, 1.5, hidden).astype(np.float32)
        shift = self.random.normal(0, 0.3, hidden).astype(np.float32)
        return {"gain": self.put(gain), "shift": self.put(shift)}, (gain.astype(float), shift.astype(float))

    def product(
        self, inner: int, columns: int, smooth: bool = False, size: float = 1.0
    ) -> tuple[dict[str, Any], tuple[Floats, Floats]]:
        weights = self.random.integers(-127, 128, (inner, columns)).astype(np.int8)
        scale = (self.random.uniform(0.5, 1.5, columns) * size / 127 / math.sqrt(inner)).astype(np.float32)
        bias = self.random.normal(0, 0.5, columns).astype(np.float32)
        factors = self.random.uniform(0.5, 2.0, inner).astype(np.float32) if smooth else None
        described = {
            "weights": self.put(weights),
            "scale": self.put(scale),
            "bias": self.put(bias),
            "smooth": None if factors is None else self.put(factors),
        }
        whole = weights * scale.astype(float)
        if factors is not None:
            whole = whole * factors.astype(float)[:, None]
        return described, (whole, bias.astype(float))

    def logits(self, window: Window) -> Floats:
        """(2, tokens)"""
        positions = np.arange(len(window.ids))
        looked = {"words": window.ids, "positions": positions, "types": window.types}
        x = np.sum([self.tables[name][1][rows] for name, rows in looked.items()], axis=0)
        x = _norm(x, self.first[1])
        for layer in self.layers:
            query, key, value = (
                part.reshape(len(x), self.heads, -1).transpose(1, 0, 2)  # (heads, tokens, width)
                for part in np.split(_apply(x, layer["qkv"][1]), 3, axis=1)
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[2])
            chances = np.exp(scores - scores.max(axis=2, keepdims=True))
            context = chances / chances.sum(axis=2, keepdims=True) @ value
            context = context.transpose(1, 0, 2).reshape(len(x), -1)
            x = _norm(x + _apply(context, layer["out"][1]), layer["after_attention"][1])
            wide = _apply(x, layer["up"][1])
            if self.activation == "gelu":
                wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            else:
                wide = np.maximum(wide, 0)
            x = _norm(x + _apply(wide, layer["down"][1]), layer["after_down"][1])
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
    assert Encoder.runs(made.artifact)
    encoder = Encoder(made.artifact, threads=2)
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


def test_threads_and_what_ran_before_change_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[1])
    windows = [made.window(tokens) for tokens in (512, 1, 300, *range(2, 140, 3), 71, 77)]
    expected = [Encoder(made.artifact, threads=1).run([window])[0] for window in windows]
    for threads in (2, 3, 5):
        encoder = Encoder(made.artifact, threads=threads)
        for narrow in (False, True):
            found = encoder.run(windows, narrow=narrow)
            assert all(map(same, found, expected))


def test_any_thread_may_call_at_any_time(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    encoder = Encoder(made.artifact, threads=3)
    windows = [made.window(tokens) for tokens in (1, 2, 3, 20, 40, 90)]
    expected = encoder.run(windows)
    right: list[bool] = []

    def ask(narrow: bool) -> None:  # runs of microseconds, so that calls meet others that end
        right.extend(all(map(same, encoder.run(windows, narrow=narrow), expected)) for _ in range(1000))

    callers = [threading.Thread(target=ask, args=(number == 0,), daemon=True) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert right == [True] * 6000


def test_ids_beyond_the_tables_are_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    encoder = Encoder(made.artifact, threads=1)
    good = made.window(8)
    for ids, types in (
        (good.ids + WORDS, good.types),
        (good.ids - WORDS, good.types),
        (good.ids, good.types + 2),
    ):
        with pytest.raises(ValueError, match="status 1"):
            encoder.run([replace(good, ids=ids, types=types)])
    with pytest.raises(ValueError, match="status 1"):
        encoder.run([made.window(POSITIONS + 1)])


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 60},
        {"heads": 64},
        {"activation": "silu"},
        {"layers": []},
        {"tables": {}},
        {"head": {"weights": [1 << 40, 64, 2], "scale": [1, 1], "bias": [0, 0]}},
        {"after_embedding": {"gain": [0, 63], "shift": [0, 64]}},
    ],
)
def test_a_description_that_does_not_fit_is_told(change: dict[str, Any], tmp_path: Path) -> None:
    made = Made(tmp_path, *SHAPES[0])
    file = tmp_path / "encoder.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ArtifactError, match="export the model again"):
        Encoder(made.artifact, threads=1)


def test_the_model_that_comes_along_is_the_kernels() -> None:
    assert Encoder.runs(load_artifact(DEFAULT_MODEL))


def test_a_description_that_no_manifest_vouches_for_is_not_used(tmp_path: Path) -> None:
    """Nobody has verified it."""
    made = Made(tmp_path, *SHAPES[0])
    files = {name: facts for name, facts in made.artifact.manifest["files"].items() if name != "encoder.json"}
    unlisted = replace(made.artifact, manifest=made.artifact.manifest | {"files": files})
    assert not Encoder.runs(unlisted)
