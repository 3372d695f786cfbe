"""Owns the project's own kernel: one artifact's weights as it wants them, logits out; knows no ONNX.

The kernel (native/encoder.c) computes what an int8 BERT graph says, several rows of a window at a time
from embedding to logits, with a range of its own for every row it rounds. It needs AVX-512 VNNI; where the
CPU, the compiled library or the model's shape is missing, ONNX Runtime runs the graph itself (session.py).
"""

import ctypes
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine import native
from service.engine.artifact import ENCODER_FILE, WEIGHTS_FILE, Artifact
from service.engine.windowing import Window, WindowLogits
from service.errors import ArtifactError

# As in native/model.h: columns of a product come in panels, sums in 32 bits hold so many tokens.
_PANEL, _MOST_TOKENS, _MOST_LAYERS, _WIDEST_HEAD = 64, 512, 63, 64
_ACTIVATIONS = {"gelu": 0, "relu": 1}

Array = npt.NDArray[Any]


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "scale", "sums", "bias", "smooth")),
        *((name, ctypes.c_int32) for name in ("inner", "columns")),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("gain", ctypes.c_void_p), ("shift", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in ("qkv", "out", "up", "down")),
        *((name, _Norm) for name in ("after_attention", "after_down")),
    )


class _Table(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("zero", ctypes.c_float),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _Table) for name in ("words", "positions", "types")),
        ("after_embedding", _Norm),
        ("layers", ctypes.POINTER(_Layer)),
        ("head", ctypes.c_void_p),
        ("head_bias", ctypes.c_float * 2),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("hidden", "heads", "inner", "depth", "activation")),
    )


def has_shape(hidden: int, inner: int, heads: int, layers: int) -> bool:
    """Whether the kernel computes encoders of these sizes."""
    return (
        hidden % _PANEL == 0
        and inner % _PANEL == 0
        and hidden % (16 * heads) == 0
        and hidden <= _WIDEST_HEAD * heads
        and 0 < layers <= _MOST_LAYERS
    )


class Encoder:
    """The kernel with one artifact's weights. Any thread may call `run`."""

    def __init__(self, artifact: Artifact, *, threads: int) -> None:
        """Pack the weights; raises ArtifactError where encoder.json does not fit them.

        The other threads start with the first run that wants them, so that a process may fork before:
        then its children share all this.
        """
        library = native.encoder()
        assert library is not None  # noqa: S101 - see `runs`
        self._library = library
        self._kept: list[Any] = []  # what the kernel has addresses of
        self._file = artifact.path / WEIGHTS_FILE
        self._data = np.memmap(self._file, dtype=np.uint8, mode="r")
        try:
            described = json.loads((artifact.path / ENCODER_FILE).read_text(encoding="utf-8"))
            self._model = self._read(described)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{artifact.path / ENCODER_FILE} does not describe {self._file} "
                f"({type(error).__name__}: {error}): export the model again."
            ) from error
        if artifact.max_length > self._model.positions.count:
            raise ArtifactError(f"{artifact.path} has fewer positions than its max_length: export it again.")
        self._helpers = threads - 1
        self._pool: int | None = None
        self._starting = threading.Lock()

    @staticmethod
    def runs(artifact: Artifact) -> bool:
        """Whether this machine and this artifact have all that the kernel needs."""
        return (
            artifact.precision == "int8"
            and artifact.max_length <= _MOST_TOKENS
            and ENCODER_FILE in artifact.manifest["files"]  # and so verified
            and (library := native.encoder()) is not None
            and library.qa_model_bytes() == ctypes.sizeof(_Model)  # compiled from these sources
        )

    def run(self, windows: Sequence[Window], *, narrow: bool = False) -> list[WindowLogits]:
        """Logits of every window, in the order given, one after the other.

        `narrow` takes this thread alone; else one call at a time has the other threads' help.
        """
        pool = None if narrow or not self._helpers else self._pool or self._start()
        return [self._run(window, pool) for window in windows]

    def _start(self) -> int | None:
        with self._starting:
            if self._pool is None:
                self._pool = self._library.qa_pool(self._helpers)
            return self._pool

    def _run(self, window: Window, pool: int | None) -> WindowLogits:
        tokens = len(window.ids)
        logits = np.empty((2, tokens), dtype=np.float32)
        ids, types, start = (native.address(array.data) for array in (window.ids, window.types, logits))
        status = self._library.qa_run(ctypes.byref(self._model), pool, ids, types, tokens, start)
        if status:
            raise MemoryError if status == 2 else ValueError(f"kernel status {status}")
        return WindowLogits(logits[0], logits[1])

    def _read(self, described: dict[str, Any]) -> _Model:
        tables, layers = described["tables"], described["layers"]
        hidden = int(described["hidden"])
        inner = int(layers[0]["up"]["weights"][2])
        heads = int(described["heads"])
        if not has_shape(hidden, inner, heads, len(layers)):
            raise ValueError("a shape that the kernel does not have")
        read = [self._layer(layer, hidden, inner) for layer in layers]
        array = (_Layer * len(read))(*read)
        self._kept.append(array)
        head = self._values(described["head"]["weights"], np.int8, (hidden, 2)) * np.array(
            described["head"]["scale"], dtype=np.float32
        )
        return _Model(
            *(self._table(tables[name], hidden) for name in ("words", "positions", "types")),
            self._norm(described["after_embedding"], hidden),
            array,
            self._keep(np.ascontiguousarray(head.T, dtype=np.float32)),
            (ctypes.c_float * 2)(*described["head"]["bias"]),
            float(described["epsilon"]),
            *(hidden, heads, inner, len(layers), _ACTIVATIONS[described["activation"]]),
        )

    def _layer(self, layer: dict[str, Any], hidden: int, inner: int) -> _Layer:
        shapes = {
            "qkv": (hidden, 3 * hidden),
            "out": (hidden, hidden),
            "up": (hidden, inner),
            "down": (inner, hidden),
        }
        return _Layer(
            *(self._product(layer[name], shape) for name, shape in shapes.items()),
            *(self._norm(layer[name], hidden) for name in ("after_attention", "after_down")),
        )

    def _product(self, described: dict[str, Any], shape: tuple[int, int]) -> _Product:
        weights = self._values(described["weights"], np.int8, shape)
        packed = np.empty(weights.size, dtype=np.int8)
        self._library.qa_pack(weights.ctypes.data, *shape, packed.ctypes.data)
        scale = self._values(described["scale"], np.float32, (shape[1],))
        sums = weights.sum(axis=0, dtype=np.int32) * scale
        smooth = described["smooth"]
        return _Product(
            self._keep(packed),
            self._keep(scale),
            self._keep(sums.astype(np.float32)),
            self._keep(self._values(described["bias"], np.float32, (shape[1],))),
            None if smooth is None else self._keep(self._values(smooth, np.float32, (shape[0],))),
            *shape,
        )

    def _norm(self, described: dict[str, Any], hidden: int) -> _Norm:
        return _Norm(
            *(self._keep(self._values(described[name], np.float32, (hidden,))) for name in ("gain", "shift"))
        )

    def _table(self, described: dict[str, Any] | None, hidden: int) -> _Table:
        """Embeddings stay in the mapped file: a text reads few of their rows."""
        if described is None:
            return _Table()
        at, count, width = described["rows"]
        if width != hidden or at < 0 or count < 1 or at + count * width > len(self._data):
            raise ValueError("a table beyond the file")
        return _Table(self._data.ctypes.data + at, count, described["scale"], described["zero"])

    def _values(self, place: list[int], kind: type[np.generic], shape: tuple[int, ...]) -> Array:
        """A copy of the tensor at `place`, [offset, *shape], so that the file need not stay in memory."""
        if tuple(place[1:]) != shape:
            raise ValueError(f"a tensor of shape {place[1:]} for {shape}")
        return np.fromfile(self._file, kind, int(np.prod(shape)), offset=place[0]).reshape(shape)

    def _keep(self, array: Array) -> int:
        self._kept.append(array)
        return array.ctypes.data
