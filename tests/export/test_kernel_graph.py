"""Graphs that the custom operator supports, and its results compared with the portable graph's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.__main__ import main
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.kernel import KERNEL, PORTABLE, choose_graph
from service.engine.parameters import Parameters
from service.engine.probes import probes
from tests.export.families import FAMILIES, build

_BY_NAME = {family.name: family for family in FAMILIES}
_WIDE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
_WIDE_DISTIL = _WIDE | {"dim": 64, "n_heads": 4, "hidden_dim": 128}


def exported(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, **sizes: object
) -> QuestionAnswerer:
    family = _BY_NAME[name]
    wide = _WIDE_DISTIL if name == "distilbert" else _WIDE
    source = build(replace(family, sizes=family.sizes | wide | sizes), folder / "source")
    monkeypatch.setattr("export.choose.MAX_ERROR", 1.0)  # random weights may exceed the error limit
    flags = ("--model", str(source), "--output", str(folder / "out"), "--recipe", recipe)
    assert main(flags) == 0
    return QuestionAnswerer(load_artifact(folder / "out"))


@pytest.mark.parametrize("recipe", ["fused-int8-per-channel", "fused-int8-smooth"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("bert", {"initializer_range": 0.2}),
        ("bert", {"initializer_range": 0.2, "num_attention_heads": 1}),
        ("bert", {"initializer_range": 0.2, "hidden_act": "relu"}),
        ("distilbert", {"initializer_range": 0.2}),
        ("electra", {"initializer_range": 0.2, "embedding_size": 64}),
    ],
)
def test_bert_like_models_get_a_second_graph(
    name: str, sizes: dict[str, object], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = exported(name, tmp_path, monkeypatch, recipe, **sizes)
    assert "model.avx512_vnni.onnx" in answerer.artifact.manifest["files"]
    for graph in ("model.onnx", "model.avx512_vnni.onnx"):
        onnx.checker.check_model(str(answerer.artifact.path / graph))
    if choose_graph(answerer.artifact).name != KERNEL:
        pytest.skip(choose_graph(answerer.artifact).reason)
    assert answerer.graph.name == KERNEL
    other = QuestionAnswerer(answerer.artifact, kernel=False)
    assert other.graph.name == PORTABLE
    windows = [
        window
        for question, context in probes()[::2]
        for window in answerer.prepare(question, context, Parameters()).windows
    ]
    ours, theirs = (
        np.concatenate([part for found in way.infer(windows) for part in (found.start, found.end)])
        for way in (answerer, other)
    )
    # The graphs round differently. Over all windows, since the logits of a short one may hardly vary.
    error = np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std()
    assert error < 0.1, error
    row = answerer.artifact.manifest["quality"]["candidates"][0]
    assert row["graph"] == KERNEL
    # One scale per row is more precise, though not for every random model.
    assert row["logit_error"] < 1.1 * row[PORTABLE]["logit_error"]


@pytest.mark.parametrize(
    ("name", "recipe", "sizes"),
    [
        ("bert", "plain-int8-per-channel", {}),
        ("bert", "split-int8-per-channel", {}),
        ("bert", "fused-int8-per-tensor", {}),
        ("bert", "fused-int8-per-channel", {"intermediate_size": 96}),  # no multiple of 64
        ("bert", "fused-int8-per-channel", {"num_attention_heads": 8}),  # heads of 8
        ("bert", "fused-int8-per-channel", {"hidden_act": "silu"}),
        ("roberta", "fused-int8-per-channel", {}),  # positions start after the padding id
        ("electra", "fused-int8-per-channel", {}),  # embeddings of another width
        ("albert", "fused-int8-per-channel", {}),
    ],
)
def test_other_models_have_the_portable_graph_alone(
    name: str, recipe: str, sizes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = exported(name, tmp_path, monkeypatch, recipe, **sizes)
    assert answerer.graph.name == PORTABLE
    assert not (answerer.artifact.path / "model.avx512_vnni.onnx").exists()
    manifest = json.loads((answerer.artifact.path / "manifest.json").read_text())
    assert "model.avx512_vnni.onnx" not in manifest["files"]
