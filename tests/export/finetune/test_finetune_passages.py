"""Training questions in plain text: the format, and the passages that the default model was trained on."""

from pathlib import Path

import pytest

from export.finetune.passages import read_passages
from export.finetune.sources import Source, read_all
from export.squad import DataError

TEXT = """## recipe
Mix the flour with the milk.
Bake for forty minutes; the large loaf takes fifty minutes.
? What goes with the milk?
= the flour
? How long does the large loaf take?
= loaf takes [[fifty minutes]]
? What does the loaf cost?
-

## memo
Ines leaves in May.
? Who leaves?
= Ines
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_questions_with_their_spans(written: Path) -> None:
    (file,), _ = read_all([Source(written)], [], 0)
    assert file.bad_count == 0
    first, second, third, fourth = file.questions
    assert (
        first.context
        == "Mix the flour with the milk.\nBake for forty minutes; the large loaf takes fifty minutes."
    )
    for question, answer in ((first, "the flour"), (second, "fifty minutes"), (fourth, "Ines")):
        (span,) = question.answers
        assert (span.text, question.golds, question.is_impossible) == (answer, (answer,), False)
        assert question.context[span.start :].startswith(answer)
    assert (third.answers, third.golds, third.is_impossible) == ((), (), True)
    assert [question.title for question in file.questions] == ["recipe"] * 3 + ["memo"]
    assert fourth.context == "Ines leaves in May."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("= the sugar", "0 times"),
        ("= minutes", "2 times"),
        ("= takes [[an hour]]", "0 times"),
        ("", 'no "= answer" or "-" follows'),
    ],
)
def test_a_question_without_a_usable_answer_is_dropped(written: Path, answer: str, reason: str) -> None:
    written.write_text(TEXT.replace("= the flour", answer), encoding="utf-8")
    file = read_passages(written)
    assert (len(file.questions), file.bad_count) == (3, 1)
    (record,) = file.first_bad
    assert record.id == "line 4"
    assert reason in record.reason


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Mix the flour.\n", 1),
        ("## recipe\nMix.\n? What?\n= Mix\n= Mix\n", 5),
        ("## recipe\nMix.\n? What?\n-\nBake.\n", 5),
    ],
)
def test_a_line_outside_of_the_format_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"line {line}:"):
        read_passages(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_passages(tmp_path / "none.txt")
    path = tmp_path / "a.txt"
    path.write_bytes(b"## a\xff")
    with pytest.raises(DataError, match="UTF-8"):
        read_passages(path)
