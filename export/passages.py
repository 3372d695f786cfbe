"""Owns the plain-text format of questions, for writing them by hand; knows no model.

## kind of text
The text, a paragraph per line.
? A question
= its answer, word for word as in the text
? One whose answer stands more than once in the text
= words before [[answer]] words after
? One that the text does not answer
-
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from export.squad import REPORTED, Answer, BadRecord, DataError, Question, SquadFile, read_squad

_MARKED = re.compile(r"(.*?)\[\[(.+?)\]\](.*)")


@dataclass(slots=True)
class _Entry:
    """A question and its line of answer; None until that line is read, "" without an answer."""

    line: int
    question: str
    answer: str | None = None


@dataclass(slots=True)
class _Passage:
    title: str
    paragraphs: list[str] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)


def read_questions(path: Path) -> SquadFile:
    """Read a `.txt` file of the format above, or a SQuAD file. Raises DataError if it is unusable."""
    return read_passages(path) if path.suffix == ".txt" else read_squad(path)


def read_passages(path: Path) -> SquadFile:
    """Read a file of the format above; the kind of text is the title of its questions.

    Questions without a usable answer line are dropped and counted. Raises DataError if the file cannot be
    read or has a line outside of the format.
    """
    questions: list[Question] = []
    bad: list[BadRecord] = []
    for passage in _parse(path):
        context = "\n".join(passage.paragraphs)
        for entry in passage.entries:
            name = f"line {entry.line}"
            try:
                answers = _answers(context, entry.answer)
            except ValueError as error:
                bad.append(BadRecord(name, str(error)))
                continue
            golds = tuple(answer.text for answer in answers)
            questions.append(
                Question(name, passage.title, entry.question, context, answers, golds, not answers)
            )
    return SquadFile(path, tuple(questions), len(bad), tuple(bad[:REPORTED]))


def _parse(path: Path) -> Iterator[_Passage]:
    passage: _Passage | None = None
    for number, line in enumerate(_lines(path), 1):
        mark, _, rest = line.partition(" ")
        if mark == "##":
            if passage is not None:
                yield passage
            passage = _Passage(rest.strip())
        elif not line.strip():
            continue
        elif passage is None:
            raise DataError(f'{path}, line {number}: a passage begins with "## kind of text".')
        elif mark == "?" and passage.paragraphs:
            passage.entries.append(_Entry(number, rest.strip()))
        elif _is_answer(mark, rest) and passage.entries and passage.entries[-1].answer is None:
            passage.entries[-1].answer = rest.strip()
        elif passage.entries:
            raise DataError(f'{path}, line {number}: neither "? question" nor its "= answer" or "-".')
        else:
            passage.paragraphs.append(line.rstrip())
    if passage is not None:
        yield passage


def _is_answer(mark: str, rest: str) -> bool:
    """Whether this is `-` alone or `= answer`; a `=` without an answer must not mean that there is none."""
    return mark == "=" if rest.strip() else mark.rstrip() == "-"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}.") from error


def _answers(context: str, line: str | None) -> tuple[Answer, ...]:
    """The span, none if the line is empty. Raises ValueError if the context does not have it just once."""
    if line is None:
        raise ValueError('no "= answer" or "-" follows')
    if not line:
        return ()
    found = _MARKED.fullmatch(line)
    before, answer, after = found.groups() if found else ("", line, "")
    places = context.count(before + answer + after)
    if places != 1:
        raise ValueError(f"its answer stands {places} times in the text, not once")
    return (Answer(answer, context.index(before + answer + after) + len(before)),)
