"""Unanswerable questions made by altering answered ones."""

import json
from pathlib import Path

import pytest

from export.alter import alter, main
from export.squad import Answer, Question, read_squad
from service.settings import DEFAULT_MODEL

PASSAGE = (
    "The mill in Oakham was built in 1804 by Edmund Price. The larger mill in Brayford followed in 1822. "
    "The first owner of the mill sold 40 sacks a week."
)


def question(text: str, answer: str, context: str = PASSAGE) -> Question:
    """An answered question about the mills."""
    return Question(
        text, "mills", text, context, (Answer(answer, context.index(answer)),), (answer,), is_impossible=False
    )


@pytest.mark.parametrize(
    ("asked", "answer", "altered"),
    [
        ("Who ran the mill in Oakham?", "Edmund Price", {"Who ran the mill in Brayford?"}),
        ("Which town has had a mill since 1804?", "Oakham", {"Which town has had a mill since 1822?"}),
        ("What amounts to 40 a week?", "sacks", set()),  # no other number that is not a year
        ("Where is the larger mill?", "Brayford", {"Where is the smaller mill?"}),
        (
            "What did the last owner sell?",
            "40 sacks",
            {"What did the first owner sell?", "What did the last owner buy?"},
        ),
    ],
)
def test_rules(asked: str, answer: str, altered: set[str]) -> None:
    found = {
        one.text
        for seed in range(20)
        for one in alter([question(asked, answer)], seed)
        if one.rule != "negation"
    }
    assert found == altered


def test_a_negation_is_rare() -> None:
    questions = [question("Who does own the mill?", "Edmund Price")] * 400
    found = [one.text for one in alter(questions, 0)]
    assert set(found) == {"Who doesn't own the mill?"}
    assert 15 < len(found) < 80


def test_names_of_the_article_are_used_where_the_passage_has_none() -> None:
    other = question("Who lives in Whitwell?", "Ruth", "Ruth lives in Whitwell.")
    asked = question("Who ran the mill in Oakham?", "Edmund Price", "Edmund Price ran the mill in Oakham.")
    assert [one.text for one in alter([asked, other], 0)] == [
        "Who ran the mill in Whitwell?",
        "Who lives in Oakham?",
    ]


def test_unanswerable_questions_are_not_altered() -> None:
    assert not list(alter([Question("1", "t", "Who came first?", PASSAGE, (), (), is_impossible=True)], 0))


def test_only_questions_with_the_old_answer_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a real model, which finds the designer of the other bridge, but overlooks "closed"."""
    context = (
        "Ann Moss designed the bridge in Oakham. Ted Wills designed the bridge in Brayford, opened in 1822."
    )
    asked = [
        ("Who designed the bridge in Oakham?", "Ann Moss"),
        ("Which bridge was opened in 1822?", "the bridge in Brayford"),
    ]
    qas = [
        {"id": str(i), "question": text, "answers": [{"text": gold, "answer_start": context.index(gold)}]}
        for i, (text, gold) in enumerate(asked)
    ]
    file, output = tmp_path / "train.json", tmp_path / "altered.json"
    paragraph = {"context": context, "qas": qas}
    articles = [{"title": title, "paragraphs": [paragraph]} for title in ("bridges", "x")]
    file.write_text(json.dumps({"data": articles}))
    flags = ["--model", str(DEFAULT_MODEL), "--train", str(file), "--output", str(output), "--hold-out", "x"]
    assert main(flags) == 0
    assert "2 questions, 2 altered, 1 kept: opposite 1" in capsys.readouterr().err
    (written,) = read_squad(output).questions
    assert (written.title, written.question) == ("bridges", "Which bridge was closed in 1822?")
    assert written.is_impossible


def test_an_unusable_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--model",
        str(DEFAULT_MODEL),
        "--train",
        str(tmp_path / "none.json"),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(flags) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
