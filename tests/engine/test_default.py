"""The default model on short texts with unambiguous answers."""

import json

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.probes import probes
from service.settings import DEFAULT_MODEL

LETTER = (
    "The letter was written by Amelia Hart in the spring of 1902. It was found in Oslo eighty years later."
)
LIGHTHOUSE = (
    "The lighthouse at Skarn Point was first lit on 4 March 1871. It was designed by the engineer "
    "Ingrid Solheim and built from grey granite in just under three years."
)
FILLER = "The harbour was quiet, and the boats lay side by side without a sound. " * 60


@pytest.fixture(scope="module", params=["avx512_vnni", "portable"])
def answerer(request: pytest.FixtureRequest) -> QuestionAnswerer:
    made = QuestionAnswerer(load_artifact(DEFAULT_MODEL), kernel=request.param == "avx512_vnni")
    if made.graph.name != request.param:
        pytest.skip(made.graph.reason)
    return made


@pytest.mark.parametrize(
    ("question", "context", "expected"),
    [
        ("Who wrote the letter?", LETTER, "Amelia Hart"),
        ("Where was the letter found?", LETTER, "Oslo"),
        ("Who designed the lighthouse?", LIGHTHOUSE, "Ingrid Solheim"),
        ("When was the lighthouse first lit?", LIGHTHOUSE, "4 March 1871"),
        ("Who designed the lighthouse?", FILLER + LIGHTHOUSE + FILLER, "Ingrid Solheim"),
    ],
)
def test_the_default_model_answers(
    answerer: QuestionAnswerer, question: str, context: str, expected: str
) -> None:
    ((best,),) = answerer.answer([(question, context)])
    assert expected in best.answer
    assert len(best.answer) <= len(expected) + 20
    assert context[best.start : best.end] == best.answer


def test_the_default_model_detects_unanswerable_questions(answerer: QuestionAnswerer) -> None:
    ((best,),) = answerer.answer(
        [("How many goals did the visiting team score?", LETTER)], Parameters(handle_impossible_answer=True)
    )
    assert best.answer == ""


def test_both_graphs_agree(answerer: QuestionAnswerer) -> None:
    other = QuestionAnswerer(answerer.artifact, kernel=answerer.graph.name != "avx512_vnni")
    same = 0
    for question, context in probes():
        ((ours,),), ((theirs,),) = (each.answer([(question, context)]) for each in (answerer, other))
        same += ours.answer == theirs.answer
    assert same >= 0.9 * len(probes())  # the graphs round differently


def test_it_is_small_and_its_card_matches_its_manifest() -> None:
    assert sum(file.stat().st_size for file in DEFAULT_MODEL.iterdir()) <= 36_000_000
    manifest = json.loads((DEFAULT_MODEL / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["precision"], manifest["target"]) == ("int8", "portable")
    assert manifest["null_threshold"] is not None
    whole, v1, v2 = manifest["quality"]["evaluation"]
    card = (DEFAULT_MODEL / "README.md").read_text(encoding="utf-8")
    figures = (
        *whole["chosen"].values(),
        *v1["chosen"].values(),
        *v1["fp32"].values(),
        v2["chosen"]["f1"],
        v2["fp32"]["f1"],
        manifest["null_threshold"],
    )
    for figure in figures:
        assert f"{figure:.2f}" in card
    assert v1["chosen"]["f1"] >= 0.995 * v1["fp32"]["f1"]
