"""Questions in plain text: the format, and the texts of export/finetune/texts."""

import re
from pathlib import Path

import pytest

import export.finetune
from export.evaluate import usable
from export.finetune.sources import Source, read_all
from export.passages import read_passages
from export.squad import DataError, SquadFile
from tests.quality.probe_set import probe_set

TEXTS = Path(export.finetune.__file__).with_name("texts")
SHARED_WORDS = 6  # consecutive words from which a text counts as shared

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
        ("## recipe\nMix.\n? What?\n=\n", 4),
        ("## recipe\nMix.\n? What?\n- Mix\n", 4),
        ("## recipe\nMix.\n? What?\n -\n", 4),
    ],
)
def test_a_line_outside_of_the_format_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"line {line}:"):
        read_passages(path)


def test_models_are_measured_on_such_files(written: Path) -> None:
    questions = usable(written, None)
    assert [question.golds for question in questions] == [("the flour",), ("fifty minutes",), (), ("Ines",)]
    assert len({question.id for question in questions}) == 4


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/fine-tune.md"
    (example,) = re.findall(
        r"^```text\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "a.txt"
    path.write_text(example, encoding="utf-8")
    file = read_passages(path)
    assert [question.golds for question in file.questions] == [("Ana Roca",), ("two years",), ()]
    assert file.bad_count == 0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_passages(tmp_path / "none.txt")
    path = tmp_path / "a.txt"
    path.write_bytes(b"## a\xff")
    with pytest.raises(DataError, match="UTF-8"):
        read_passages(path)


@pytest.fixture(scope="module")
def texts() -> dict[str, SquadFile]:
    """The files of export/finetune/texts by name."""
    return {path.name: read_passages(path) for path in TEXTS.glob("*.txt")}


def test_the_texts_for_training_are_usable_and_varied(texts: dict[str, SquadFile]) -> None:
    assert len(texts) > 5
    questions = [question for file in texts.values() for question in file.questions]
    for name, file in texts.items():
        assert file.bad_count == 0, (name, file.first_bad)
        unanswerable = sum(question.is_impossible for question in file.questions)
        assert 0.25 < unanswerable / len(file.questions) < 0.55, name
    assert len({(question.question, question.context) for question in questions}) == len(questions)
    for question in questions:
        for answer in question.answers:
            assert answer.text == answer.text.strip(" ,;:"), question.question


def test_no_text_is_of_the_probe_set_or_held_out_and_trained_on(texts: dict[str, SquadFile]) -> None:
    kept_out = {name for name in texts if name.startswith("held-out")}
    held_out = [question for name in kept_out for question in texts[name].questions]
    trained = [question for name in texts.keys() - kept_out for question in texts[name].questions]
    assert held_out
    assert trained
    assert not {question.context for question in held_out} & {question.context for question in trained}
    probes = {run for probe in probe_set() for text in (probe.question, probe.context) for run in runs(text)}
    for question in (*held_out, *trained):
        assert not probes.intersection((*runs(question.question), *runs(question.context))), question.question


def runs(text: str) -> list[tuple[str, ...]]:
    """All runs of SHARED_WORDS consecutive words."""
    words = re.findall(r"\w+", text.casefold())
    return [tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)]
