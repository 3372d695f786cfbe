"""Rule-based unanswerable examples."""

from pathlib import Path

from export.finetune.examples import build_examples
from export.finetune.negatives import Negatives
from export.squad import Answer, Question, read_squad
from tests.export.finetune.rooms import paragraphs, write

MILL = "The mill was built in 1704. Ada Brook built it of oak. A flood took its wheel in 1911."
BRIDGE = "The bridge was built by the miller's son. It is of stone."
GARDEN = "Roses grow behind the house."


def asked(question: str, context: str, text: str) -> Question:
    return Question("", "", question, context, (Answer(text, context.index(text)),), (text,), False)


QUESTIONS = [
    asked("When was the mill built?", MILL, "1704"),
    asked("What is the bridge made of?", BRIDGE, "stone"),
    asked("What grows behind the house?", GARDEN, "Roses"),
]


class TestRules:
    def test_the_answer_sentence_is_removed_or_a_similar_passage_is_used(self) -> None:
        made = list(Negatives(QUESTIONS).make(QUESTIONS[:1], 2, "0"))
        assert [question.question for question, _ in made] == ["When was the mill built?"] * 2
        assert made[0][1] == "Ada Brook built it of oak. A flood took its wheel in 1911."
        assert made[1][1] == BRIDGE

    def test_a_passage_that_contains_the_answer_is_not_used(self) -> None:
        other = asked(
            "When was the mill built?", "The mill was built in a year. So was, in 1704, a barn.", "1704"
        )
        contexts = [context for _, context in Negatives([*QUESTIONS, other]).make([QUESTIONS[0]], 4, "0")]
        assert contexts
        assert all("1704" not in context for context in contexts)

    def test_a_passage_with_the_same_question_is_not_used(self) -> None:
        again = asked("When was the MILL built?", BRIDGE, "the miller's son")
        (_, first), (_, second) = Negatives([*QUESTIONS, again]).make([QUESTIONS[0]], 2, "0")
        assert BRIDGE not in (first, second)

    def test_the_only_sentence_of_a_context_is_not_removed(self) -> None:
        (pair,) = Negatives(QUESTIONS).make(QUESTIONS[2:], 1, "0")
        assert pair[1] in (MILL, BRIDGE)
        assert list(Negatives(QUESTIONS[2:]).make(QUESTIONS[2:], 1, "0")) == []


def test_examples_of_a_file(squad: Path) -> None:
    file = read_squad(squad)
    examples = build_examples(file, 0.5, "1/0")
    assert build_examples(file, 0.5, "1/0") == examples
    assert build_examples(file, 0.5, "2/0") != examples
    made = examples[len(file.questions) :]
    assert len(made) == 20
    known = {(question.question, question.context) for question in file.questions}
    for example in made:
        assert example.answers == ()
        assert (example.question, example.context) not in known
        sources = [q for q in file.questions if q.question == example.question]
        assert any(not any(gold in example.context for gold in q.golds) for q in sources)


def test_a_file_of_one_paragraph(tmp_path: Path) -> None:
    file = read_squad(write(tmp_path / "one.json", paragraphs()[:1]))
    made = build_examples(file, 1.0, "")[2:]
    assert len(made) == 2
    assert all(example.context.startswith("Room 0 is small. The") for example in made)
