"""Compares the engine with the transformers 4 pipeline: 50 questions with stored answers."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import regex

from export.parity import upstream_place
from service.engine.answering import Answer, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED = ROOT.parent / "shared"
TOLERANCE = 1e-4

QUESTIONS = [
    (question, entry["context"])
    for entry in json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
    for question in entry["questions"]
]
RUNS: list[dict[str, Any]] = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def answerer() -> QuestionAnswerer:
    return QuestionAnswerer(load_artifact(ROOT / "tests/models/tiny-fp32"))


def test_there_are_fifty_questions() -> None:
    assert len(QUESTIONS) >= 50


@pytest.mark.parametrize("run", RUNS, ids=lambda run: str(run["parameters"]))
def test_answers_equal_the_stored_ones(answerer: QuestionAnswerer, run: dict[str, Any]) -> None:
    parameters = Parameters(**run["parameters"])
    for (question, context), stored in zip(QUESTIONS, run["answers"], strict=True):
        asked = parameters
        if len(answerer.prepare(question, context, parameters).windows) > 1:
            asked = replace(parameters, scoring="per_window")
        prepared = answerer.prepare(question, context, asked)
        answers = answerer.decode(prepared, answerer.infer(prepared.windows), upstream_place)
        # If there are too few spans, upstream pads with invalid ones of score 0; after merging equal
        # texts it may return fewer than top_k. The engine searches on, so its list may be longer; it
        # begins with upstream's answers.
        expected = [Answer(**answer) for answer in stored if answer["score"] > 0]
        assert len(answers) >= len(expected)
        for null in (False, True):
            ours = [a for a in answers if (a.answer == "") == null]
            theirs = [a for a in expected if (a.answer == "") == null]
            for a, b in zip(ours, theirs, strict=False):
                assert (a.answer, a.start, a.end) == (b.answer, b.start, b.end)
                assert a.score == pytest.approx(b.score, abs=TOLERANCE)
            assert null or len(ours) >= len(theirs)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: str(run["parameters"]))
def test_answers_are_slices_of_their_contexts(answerer: QuestionAnswerer, run: dict[str, Any]) -> None:
    for question, context in QUESTIONS:
        (answers,) = answerer.answer([(question, context)], Parameters(**run["parameters"]))
        assert all(context[a.start : a.end] == a.answer for a in answers)
        assert len({a.answer.lower() for a in answers}) == len(answers)
        assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)


def test_deviations_from_upstream(answerer: QuestionAnswerer) -> None:
    """Only where upstream's answers split a grapheme cluster (a letter with a combining accent)."""
    others = set()
    for question, context in QUESTIONS:
        prepared = answerer.prepare(question, context, Parameters(top_k=5, scoring="per_window"))
        logits = answerer.infer(prepared.windows)
        if answerer.decode(prepared, logits) != answerer.decode(prepared, logits, upstream_place):
            others.add(context)
    assert others
    assert all(len(regex.findall(r"\X", context)) < len(context) for context in others)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_the_stored_answers_equal_those_of_the_installed_pipeline() -> None:
    from export.parity import ask, load_reference

    reference = load_reference(str(ROOT / "tests/models/tiny"))
    for run in RUNS[:2]:
        parameters = Parameters(**run["parameters"])
        for (question, context), stored in zip(QUESTIONS, run["answers"], strict=True):
            today = list(ask(reference, question, context, parameters))
            for answer, old in zip(today, stored, strict=True):
                assert (answer.answer, answer.start, answer.end) == (old["answer"], old["start"], old["end"])
                assert answer.score == pytest.approx(old["score"], abs=TOLERANCE)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.timeout(900)  # a minute on two idle cores
def test_300_squad_questions(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A seeded sample on a real model; skipped without the model and the data."""
    model, data = SHARED / "models/minilm-l6-draft", SHARED / "data/squad-dev-v1.1.json"
    if not model.is_dir() or not data.is_file():
        pytest.skip("the draft model and the SQuAD 1.1 dev file are not beside the project")
    from export.__main__ import main
    from export.parity import compare, load_reference, squad_pairs

    artifact = tmp_path_factory.mktemp("parity") / "fp32"
    assert main(["--model", str(model), "--output", str(artifact), "--precision", "fp32"]) == 0
    parity = compare(
        load_reference(str(model)), QuestionAnswerer(load_artifact(artifact)), squad_pairs(data, 300)
    )
    assert parity.questions == 300
    assert parity.several_windows > 0
    assert parity.differences == []
