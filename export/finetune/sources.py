"""Owns the kinds of training files and the fraction used of each; knows no token.

Besides SQuAD files and plain text (`export.passages`): JSON Lines, a paragraph per line, whose questions are
answered by one of its `candidates`, without the link between them (which translated datasets lose):

    {"doc": 7, "context": "...", "candidates": [[0, 4], ...],
     "questions": [{"question": "...", "answerable_est": true}, ...]}

Candidates are code points, the end exclusive; `doc` is the article's title.
"""

import gzip
import json
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.passages import read_questions
from export.squad import REPORTED, Answer, BadRecord, DataError, Question, SquadFile

_LINES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Source:
    """A training file and the fraction of its questions to use, 0 to 1."""

    path: Path
    share: float = 1.0


def parse_source(text: str) -> Source:
    """Parse `FILE` or `FILE@SHARE`. Raises ValueError if the share is not in (0, 1]."""
    path, at, share = text.rpartition("@")
    try:
        number = float(share)
    except ValueError:
        return Source(Path(text))
    if not at or not 0 < number <= 1:
        raise ValueError(f"the share in {text} is not in (0, 1]")
    return Source(Path(path), number)


def read_all(
    sources: Sequence[Source], hold_out: Collection[str], seed: int
) -> tuple[list[SquadFile], list[Question]]:
    """The training questions, a seeded sample per file, and the held-out ones.

    The articles with titles in `hold_out` are held out entirely, except questions without a known answer.
    Raises DataError if a file is unusable or no file has an article with such a title.
    """
    files: list[SquadFile] = []
    held: list[Question] = []
    missing = set(hold_out)
    for number, source in enumerate(sources):
        file = _read(source.path)
        kept = [question for question in file.questions if question.title not in hold_out]
        if source.share < 1:
            chosen = random.Random(f"{seed}/{number}").sample(
                range(len(kept)), round(source.share * len(kept))
            )
            kept = [kept[i] for i in sorted(chosen)]
        files.append(replace(file, questions=tuple(kept)))
        missing -= {question.title for question in file.questions}
        held += [q for q in file.questions if q.title in hold_out and q.trainable and not q.one_of]
    if missing:
        raise DataError(f"No training file has an article titled {', '.join(sorted(missing))}.")
    return files, held


def _squad_content(questions: Iterable[Question]) -> dict[str, Any]:
    """The questions as the content of a SQuAD 2.0 file, with new ids."""
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for number, question in enumerate(questions):
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in question.answers]
        entry = {
            "id": str(number),
            "question": question.question,
            "answers": answers,
            "is_impossible": question.is_impossible,
        }
        articles.setdefault(question.title, {}).setdefault(question.context, []).append(entry)
    return {
        "version": "v2.0",
        "data": [
            {
                "title": title,
                "paragraphs": [{"context": text, "qas": qas} for text, qas in paragraphs.items()],
            }
            for title, paragraphs in articles.items()
        ],
    }


def write_squad(file: Path, questions: Iterable[Question]) -> None:
    """Write a SQuAD 2.0 file."""
    file.write_text(json.dumps(_squad_content(questions)), encoding="utf-8")


def _read(path: Path) -> SquadFile:
    return _read_candidates(path) if path.name.endswith(_LINES) else read_questions(path)


def _read_candidates(path: Path) -> SquadFile:
    """Questions with `one_of` set; invalid lines are dropped and counted."""
    questions: list[Question] = []
    bad: list[BadRecord] = []
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    questions += _paragraph(json.loads(line), f"line {number}")
                except (KeyError, TypeError, ValueError) as error:
                    bad.append(BadRecord(f"line {number}", f"no paragraph with candidates ({error!r})"))
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}.") from error
    return SquadFile(path, tuple(questions), len(bad), tuple(bad[:REPORTED]))


def _paragraph(record: Any, where: str) -> list[Question]:
    context = str(record["context"])
    answers = []
    for start, end in record["candidates"]:
        if not 0 <= start < end <= len(context) or not context[start:end].strip():
            raise ValueError(f"the candidate {start}-{end} lies outside of the context")
        answers.append(Answer(context[start:end], start))
    golds = tuple(answer.text for answer in answers)
    questions = []
    for number, entry in enumerate(record["questions"]):
        answerable = bool(entry["answerable_est"])
        question = Question(
            id=f"{where}, question {number}",
            title=str(record["doc"]),
            question=str(entry["question"]),
            context=context,
            answers=tuple(answers) if answerable else (),
            golds=golds if answerable else (),
            is_impossible=not answerable,
            one_of=answerable,
        )
        questions.append(question)
    return questions
