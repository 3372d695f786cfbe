"""The engine with a real graph: offsets, batches, threads, no-answer scores, invalid input."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.engine.answering import Answer, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.decoding import ExplainedAnswer, TokenProbabilities
from service.engine.parameters import Parameters
from service.errors import InvalidInput

TESTS = Path(__file__).resolve().parents[1]
ITEMS = [
    (question, entry["context"])
    for entry in json.loads((TESTS / "golden/questions.json").read_text(encoding="utf-8"))
    for question in entry["questions"]
]


@pytest.fixture(scope="module", params=["tiny-fp32", "tiny-int8"])
def answerer(request: pytest.FixtureRequest) -> QuestionAnswerer:
    return QuestionAnswerer(load_artifact(TESTS / "models" / request.param))


def test_a_batch_gives_the_answers_of_its_items(answerer: QuestionAnswerer) -> None:
    together = answerer.answer(ITEMS)
    for item, answers in zip(ITEMS, together, strict=True):
        ((alone,),) = answerer.answer([item])
        assert (answers[0].start, answers[0].end) == (alone.start, alone.end)
        assert answers[0].score == pytest.approx(alone.score, abs=1e-4)


def test_concurrent_calls_are_independent(answerer: QuestionAnswerer) -> None:
    expected = [answerer.answer([item]) for item in ITEMS]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = list(pool.map(lambda item: answerer.answer([item]), ITEMS))
            assert found == expected


@pytest.mark.parametrize("top_k", [1, 2, 7, 40])
def test_top_k_answers_if_available(answerer: QuestionAnswerer, top_k: int) -> None:
    context = "alpha beta gamma delta epsilon zeta eta theta"
    (answers,) = answerer.answer([("Which?", context)], Parameters(top_k=top_k, max_answer_len=100))
    words = len(context.split())
    assert len(answers) == min(top_k, words * (words + 1) // 2)
    assert len({answer.answer for answer in answers}) == len(answers)


def test_equal_texts_are_one_answer(answerer: QuestionAnswerer) -> None:
    (answers,) = answerer.answer([("Which?", "Yes yes YES")], Parameters(top_k=10))
    assert [a.answer.lower() for a in answers].count("yes") == 1


@pytest.mark.parametrize("context", [" ", "\n\t \r\n", "\u200b"])
def test_no_answer_is_a_result(answerer: QuestionAnswerer, context: str) -> None:
    (answers,) = answerer.answer([("Which?", context)], Parameters(top_k=3))
    assert answers == [Answer("", 0, 0, 0.0)]


@pytest.mark.parametrize(
    ("question", "context", "field"),
    [
        ("", "text", "question"),
        ("Which?", "", "context"),
        ("\ud83d", "text", "question"),
        ("Which?", "half \udc00 pair", "context"),
    ],
)
def test_invalid_texts_are_named_in_the_error(
    answerer: QuestionAnswerer, question: str, context: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        answerer.answer([(question, context)])
    assert caught.value.field == field
    assert "half \udc00" not in caught.value.message


def test_the_null_threshold_shifts_the_decision(answerer: QuestionAnswerer) -> None:
    def null_first(threshold: float | None) -> bool:
        parameters = Parameters(handle_impossible_answer=True, null_threshold=threshold)
        return answerer.answer([ITEMS[0]], parameters)[0][0].answer == ""

    assert null_first(-60.0)
    assert not null_first(60.0)
    assert null_first(None) == null_first(0.0)


def test_top_k_answers_of_several_windows(answerer: QuestionAnswerer) -> None:
    question, context = next(item for item in ITEMS if len(item[1]) > 700)
    parameters = Parameters(max_seq_len=64, doc_stride=16, top_k=3)
    assert len(answerer.prepare(question, context, parameters).windows) > 3
    (answers,) = answerer.answer([(question, context)], parameters)
    assert len(answers) == 3
    assert all(context[a.start : a.end] == a.answer for a in answers)
    assert sum(a.score for a in answers) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 0),
        ("max_answer_len", 0),
        ("max_seq_len", -1),
        ("max_question_len", 0),
        ("doc_stride", -1),
        ("doc_stride", 384),
        ("scoring", "best"),
        ("null_threshold", float("nan")),
    ],
)
def test_parameters_out_of_range_are_named_in_the_error(name: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Parameters(**{name: value})  # type: ignore[arg-type] # deliberately invalid
    assert caught.value.field == f"parameters.{name}"


LONG = "The harbour was quiet, and the boats lay side by side. " * 20


@pytest.mark.parametrize("parameters", [{}, {"scoring": "per_window"}, {"max_seq_len": 64, "doc_stride": 16}])
@pytest.mark.parametrize("context", ["The bridge was opened in 1931 by the mayor.", LONG])
def test_token_probabilities_cover_the_whole_context(
    answerer: QuestionAnswerer, context: str, parameters: dict[str, Any]
) -> None:
    wanted = Parameters(token_probabilities=True, handle_impossible_answer=True, top_k=500, **parameters)
    (answers,) = answerer.answer([("When?", context)], wanted)
    best, *others = answers
    assert isinstance(best, ExplainedAnswer)
    assert not any(isinstance(other, ExplainedAnswer) for other in others)
    assert "".join(context[start:end] for start, end in best.tokens.offsets) == "".join(context.split())
    null = next(answer.score for answer in answers if not answer.answer)
    missing = [1 - sum(best.tokens.start), 1 - sum(best.tokens.end)]
    assert all(share > -1e-3 for share in missing)
    if parameters.get("scoring") != "per_window":
        assert missing[0] * missing[1] == pytest.approx(null, rel=0.02, abs=1e-4)


def test_the_score_is_the_product_of_start_and_end_probabilities(answerer: QuestionAnswerer) -> None:
    context = "alpha beta gamma delta epsilon zeta"
    wanted = Parameters(token_probabilities=True, align_to_words=False)
    ((best,),) = answerer.answer([("Which?", context)], wanted)
    assert isinstance(best, ExplainedAnswer)
    first = [start for start, _ in best.tokens.offsets].index(best.start)
    last = [end for _, end in best.tokens.offsets].index(best.end)
    assert best.score == pytest.approx(best.tokens.start[first] * best.tokens.end[last], rel=1e-3)


def test_a_blank_context_has_no_token_probabilities(answerer: QuestionAnswerer) -> None:
    ((best,),) = answerer.answer([("Which?", " ")], Parameters(token_probabilities=True))
    assert isinstance(best, ExplainedAnswer)
    assert best.tokens == TokenProbabilities([], [], [])
