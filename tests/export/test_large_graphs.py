"""Graphs too large for one protobuf message: with a lowered limit, and a real one over 2 GB."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx.serialization
import onnxruntime as ort
import pytest

from export import convert
from export.__main__ import main
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.probes import probes
from tests.export.families import FAMILIES, build

_BY_NAME = {family.name: family for family in FAMILIES}
_LIMIT = 100_000  # bytes; the tiny model has 180,000 of weights
_NEEDED = 15  # GB of memory for a graph of 2.2 GB


def lower_the_limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After the conversion, messages of _LIMIT bytes fail, as those of 2 GB do; returns all sizes."""
    serializer: Any = onnx.serialization._ProtobufSerializer
    write, read, session = serializer.serialize_proto, serializer.deserialize_proto, ort.InferenceSession
    sizes: list[int] = []

    def checked(message: bytes) -> bytes:
        sizes.append(len(message))
        assert len(message) < _LIMIT
        return message

    def load(graph: object, *arguments: Any, **named: Any) -> ort.InferenceSession:
        assert not isinstance(graph, bytes)
        return session(graph, *arguments, **named)

    def converted(*arguments: Any) -> None:
        original(*arguments)
        monkeypatch.setattr(serializer, "serialize_proto", lambda *a: checked(write(*a)))
        monkeypatch.setattr(serializer, "deserialize_proto", lambda s, m, p: read(s, checked(m), p))
        monkeypatch.setattr(ort, "InferenceSession", load)

    original: Callable[..., None] = convert.convert
    monkeypatch.setattr(convert, "convert", converted)
    return sizes


@pytest.mark.parametrize("recipe", ["plain-int8-per-channel", "fused-int8-smooth", "split-int8-smooth"])
def test_no_message_holds_the_weights(
    recipe: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--model", str(tiny), "--recipe", recipe)
    assert main([*flags, "--output", str(tmp_path / "usual")]) == 0
    sizes = lower_the_limit(monkeypatch)
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")  # optimum then writes two files, as for large graphs
    assert main([*flags, "--output", str(tmp_path / "large")]) == 0
    assert len(sizes) > 8
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "large" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()


def test_a_weights_file_in_the_working_directory_is_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx.data").write_text("another model's")
    monkeypatch.chdir(tmp_path)
    assert main(["--model", str(tiny), "--precision", "fp32", "--output", "out"]) == 0
    assert (tmp_path / "model.onnx.data").read_text() == "another model's"


def _available() -> float:
    """Available memory in GB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


@pytest.mark.timeout(3000)
@pytest.mark.skipif("TEST_LARGE" not in os.environ, reason="takes minutes: set TEST_LARGE=1")
def test_a_graph_over_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if _available() < _NEEDED:
        pytest.skip(f"needs {_NEEDED} GB of memory")
    # The vocabulary of XLM-RoBERTa large, and as many weights in one layer as in its 24.
    wide = {"vocab_size": 250_002, "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 1}
    family = _BY_NAME["xlm-roberta"]
    sizes = family.sizes | wide | {"intermediate_size": 139_264, "initializer_range": 0.02}
    source = build(replace(family, sizes=sizes), tmp_path / "source")
    assert (source / "model.safetensors").stat().st_size > 2**31
    monkeypatch.setattr("export.choose.MAX_ERROR", 1.0)  # random weights may exceed the error limit
    # The recipe with the most stages.
    flags = ("--model", str(source), "--recipe", "split-int8-smooth", "--output", str(tmp_path / "out"))
    assert main(flags) == 0
    answerer = QuestionAnswerer(load_artifact(tmp_path / "out"))
    question, context = probes()[0]
    ((answer,),) = answerer.answer([(question, context)])
    assert context[answer.start : answer.end] == answer.answer
