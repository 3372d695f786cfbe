"""The custom operator against the same encoder in NumPy's float64, at many lengths and numbers of threads."""

import ctypes
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from service.engine import session
from service.engine.artifact import load_artifact
from service.engine.kernel import KERNEL, LIBRARY, PORTABLE, choose_graph
from service.engine.session import Session
from service.engine.windowing import WindowLogits
from service.settings import DEFAULT_MODEL
from tests.random_encoder import POSITIONS, WORDS, RandomEncoder

DEFAULT = load_artifact(DEFAULT_MODEL)
pytestmark = pytest.mark.skipif(choose_graph(DEFAULT).name != KERNEL, reason=choose_graph(DEFAULT).reason)
Floats = npt.NDArray[np.float64]
# (hidden, inner, heads, layers, activation)
SHAPES = [
    (64, 128, 4, 2, "gelu"),  # heads of 16
    (128, 192, 4, 3, "relu"),  # of 32
    (192, 64, 4, 1, "gelu"),  # of 48
    (128, 256, 2, 2, "gelu"),  # of 64
]


def same(a: WindowLogits, b: WindowLogits) -> bool:
    return np.array_equal(a.start, b.start) and np.array_equal(a.end, b.end)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_the_operator_computes_the_encoder(shape: tuple[int, int, int, int, str], tmp_path: Path) -> None:
    reference = RandomEncoder(tmp_path, *shape)
    encoder = reference.session(threads=2)
    spread = reference.logits(reference.window(200)).std()
    errors = []
    for tokens in (1, 2, 3, 5, 16, 63, 64, 65, 97, 128, 200, 383, 512):
        window = reference.window(tokens)
        (found,) = encoder.run([window])
        error = np.array([found.start, found.end]) - reference.logits(window)
        assert np.sqrt(np.mean(error**2)) < 0.15 * spread, tokens
        errors.append(error.ravel())
    # Activations are quantized to 8 bits: errors are a few hundredths of the logits' standard deviation.
    assert np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 0.03 * spread


def test_results_do_not_depend_on_threads_or_earlier_runs(tmp_path: Path) -> None:
    reference = RandomEncoder(tmp_path, *SHAPES[1])
    windows = [reference.window(tokens) for tokens in (512, 1, 300, *range(2, 140, 3), 71, 77)]
    expected = [reference.session(threads=1).run([window])[0] for window in windows]
    for threads in (2, 3, 5):
        encoder = reference.session(threads)
        for narrow in (False, True):
            found = encoder.run(windows, narrow=narrow)
            assert all(map(same, found, expected))


def test_amx_and_vector_code_compute_the_same_bits(tmp_path: Path) -> None:
    use_tiles = ctypes.CDLL(str(LIBRARY)).qa_use_tiles
    if not use_tiles(1):
        pytest.skip("this CPU, kernel or compiler has no AMX")
    for number, shape in enumerate(SHAPES):
        (tmp_path / str(number)).mkdir()
        reference = RandomEncoder(tmp_path / str(number), *shape)
        windows = [reference.window(tokens) for tokens in (1, 15, 16, 17, 31, 32, 33, 48, 49, 200, 512)]
        for threads in (1, 2):
            encoder = reference.session(threads)
            tiled = encoder.run(windows)
            try:
                use_tiles(0)
                assert all(map(same, encoder.run(windows), tiled))
            finally:
                use_tiles(1)


def test_windows_of_one_batch_do_not_change_each_other(tmp_path: Path) -> None:
    reference = RandomEncoder(tmp_path, *SHAPES[0])
    windows = [reference.window(40), replace(reference.window(40), ids=reference.window(40).ids[::-1].copy())]
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    raw = ort.InferenceSession(str(reference.save()), options)
    feeds = {
        "input_ids": np.stack([window.ids for window in windows]),
        "token_type_ids": np.stack([window.types for window in windows]),
    }
    found = raw.run(["start_logits", "end_logits"], feeds)
    for row, expected in enumerate(reference.session(threads=2).run(windows)):
        assert same(WindowLogits(found[0][row], found[1][row]), expected)


def test_concurrent_runs(tmp_path: Path) -> None:
    reference = RandomEncoder(tmp_path, *SHAPES[0])
    encoder = reference.session(threads=3)
    windows = [reference.window(tokens) for tokens in (1, 2, 3, 20, 40, 90)]
    expected = encoder.run(windows)
    right: list[bool] = []

    def ask(narrow: bool) -> None:  # runs of microseconds, so that calls overlap at start and end
        right.extend(all(map(same, encoder.run(windows, narrow=narrow), expected)) for _ in range(500))

    callers = [threading.Thread(target=ask, args=(number == 0,), daemon=True) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert right == [True] * 3000


def test_equal_weights_are_packed_once_per_process(tmp_path: Path) -> None:
    """Sessions with equal weights share the packed copy; sessions with other weights do not."""
    packed = ctypes.CDLL(str(LIBRARY)).qa_packed_models
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = RandomEncoder(tmp_path / "a", *SHAPES[3]), RandomEncoder(tmp_path / "b", *SHAPES[3])
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


def test_ids_out_of_range_are_rejected(tmp_path: Path) -> None:
    reference = RandomEncoder(tmp_path, *SHAPES[0])
    encoder = reference.session(threads=1)
    good = reference.window(8)
    for ids, types in (
        (good.ids + WORDS, good.types),
        (good.ids - WORDS, good.types),
        (good.ids, good.types + 2),
    ):
        with pytest.raises(Exception, match="an id is not in its table"):
            encoder.run([replace(good, ids=ids, types=types)])
    with pytest.raises(Exception, match="too many tokens"):
        encoder.run([reference.window(POSITIONS + 1)])


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
    reference = RandomEncoder(tmp_path, *SHAPES[0])
    reference.attributes |= attributes
    for index, values in inputs.items():
        reference.inputs[f"input_{index}"] = values
    reference.save()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).write_bytes((Path(__file__).parents[1] / "models/tiny-int8" / name).read_bytes())
    loaded = Session(reference.artifact, threads=1, token_budget=1, concurrent=False)
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
    """Its hash has not been verified."""
    reference = RandomEncoder(tmp_path, *SHAPES[0])
    files = {
        name: facts for name, facts in reference.artifact.manifest["files"].items() if "avx512" not in name
    }
    unlisted = replace(reference.artifact, manifest=reference.artifact.manifest | {"files": files})
    assert choose_graph(unlisted).name == PORTABLE
    assert "has no model.avx512_vnni.onnx" in choose_graph(unlisted).reason
