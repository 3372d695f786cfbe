"""Every supported architecture: a tiny random model, exported and compared with the pipeline."""

import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest

from export import parity
from export.__main__ import main
from export.optimize import fusible
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.probes import probes
from tests.export.families import FAMILIES, Family, build
from tests.tokenizer_kinds import word_piece

QUESTIONS = probes()[::3]
_BY_NAME = {family.name: family for family in FAMILIES}


def exported(source: Path, output: Path, *flags: str) -> QuestionAnswerer:
    assert main(["--model", str(source), "--output", str(output), *flags]) == 0
    return QuestionAnswerer(load_artifact(output))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.name))
def test_family(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(family, tmp_path / "source")
    fp32 = exported(source, tmp_path / "fp32", "--precision", "fp32")
    reference = parity.load_reference(str(source))
    for parameters in (Parameters(), Parameters(top_k=3, max_seq_len=96, doc_stride=32)):
        found = parity.compare(reference, fp32, QUESTIONS, parameters)
        assert found.differences == []
        assert found.questions == len(QUESTIONS)
        # Offsets of most tokenizers include the space before a word, and those of one lose a letter;
        # the service corrects both.
        for difference in found.intended:
            assert family.tokenizer is not word_piece
            assert all(a.answer == a.answer.strip() != "" for a in difference.ours)
    assert found.several_windows > 0
    # Random weights may exceed the error limit, so it is disabled; every candidate must still approximate
    # the same function.
    monkeypatch.setattr("export.choose.MAX_ERROR", 1.0)
    int8 = exported(source, tmp_path / "int8")
    assert int8.artifact.precision == "int8"
    architecture = int8.artifact.manifest["architecture"]
    candidates = int8.artifact.manifest["quality"]["candidates"]
    names = [candidate["recipe"] for candidate in candidates]
    assert sum(name.startswith("plain") for name in names) == 3
    assert sum(name.startswith("fused") for name in names) == (3 if fusible(architecture) else 0)
    assert sum(name.startswith("split") for name in names) == (2 if fusible(architecture) else 0)
    assert all(candidate["logit_error"] < 0.5 for candidate in candidates)
    graph = onnx.load(int8.artifact.model_path)
    operators = {node.op_type for node in graph.graph.node}
    # Batches are not padded, so only unfused attention has a mask (ALBERT shares its weights).
    if not int8.artifact.manifest["recipe"].startswith("plain") and "Softmax" not in operators:
        assert "attention_mask" not in int8.artifact.inputs
    assert ("attention_mask" in int8.artifact.inputs) == any(
        "attention_mask" in node.input for node in graph.graph.node
    )
    assert operators & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}


def test_a_tokenizer_without_a_length(tmp_path: Path) -> None:
    source = build(_BY_NAME["roberta"], tmp_path / "source", model_max_length=10**30)
    fp32 = exported(source, tmp_path / "fp32", "--precision", "fp32")
    assert fp32.artifact.max_length == 512  # 514 positions less the two before the first token
    found = parity.compare(parity.load_reference(str(source)), fp32, QUESTIONS)
    assert found.differences == []


def test_padding_on_the_left_puts_the_context_first(tmp_path: Path) -> None:
    source = build(_BY_NAME["bert"], tmp_path / "source", padding_side="left")
    fp32 = exported(source, tmp_path / "fp32", "--precision", "fp32")
    assert not fp32.artifact.question_first
    for question, context in QUESTIONS:
        (window, *_) = fp32.prepare(question, context, Parameters()).windows
        assert window.context_at == 1
        # No comparison with the pipeline: with padding on the left it lets parts of the question
        # be answers.
        for answer in fp32.answer([(question, context)], Parameters(top_k=5))[0]:
            assert context[answer.start : answer.end] == answer.answer


def test_outputs_are_read_by_name(tmp_path: Path) -> None:
    straight = QuestionAnswerer(load_artifact(Path(__file__).parents[1] / "models/tiny-fp32"))
    folder = tmp_path / "turned"
    shutil.copytree(straight.artifact.path, folder)
    graph = onnx.load(str(folder / "model.onnx"))
    outputs = list(graph.graph.output)
    assert len(outputs) == 2
    del graph.graph.output[:]
    graph.graph.output.extend(reversed(outputs))
    onnx.save(graph, str(folder / "model.onnx"))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "model.onnx").read_bytes()
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    turned = QuestionAnswerer(load_artifact(folder))
    assert turned.answer(QUESTIONS) == straight.answer(QUESTIONS)
