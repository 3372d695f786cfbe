"""Owns scores by kind of question: `python -m export.kinds`; knows no export stage."""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from export import squad
from export.evaluate import Asked, ask, usable
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.errors import QAError

_WORDS = ("how many", "how much", "what", "who", "when", "where", "which", "why", "how")
_MONTH = r"January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"\b(?:{_MONTH}|1[0-9]{{3}}|20[0-9]{{2}})\b")
_LENGTHS = (100, 150, 200, 300)  # words of a context


def first_word(question: str) -> str:
    """The first question word, at any position ("In what year ...": what); else "other"."""
    found = re.search(rf"\b({'|'.join(_WORDS)})\b", question.casefold())
    return found[1] if found else "other"


def answer_kind(answer: str) -> str:
    """Approximate kind by form: date, number, name, clause (over 5 words) or phrase."""
    if _DATE.search(answer):
        return "date"
    if re.search(r"\d", answer):
        return "number"
    words = answer.split()
    if len(words) > 5:
        return "clause"
    capitals = sum(word[:1].isupper() for word in words)
    return "name" if 2 * capitals > len(words) else "phrase"


def context_length(context: str) -> str:
    """The length bucket by words."""
    words = len(context.split())
    for low, high in zip((0, *_LENGTHS), _LENGTHS, strict=False):
        if words <= high:
            return f"{low + 1}-{high} words"
    return f"over {_LENGTHS[-1]} words"


def tables(asked: Sequence[Asked], threshold: float | None) -> Iterator[str]:
    """Markdown lines: EM and F1 of answerable questions by kind, then the figures for "no answer".

    Kinds are those of the annotated answers; without a threshold every question is answered.
    """
    answerable = [one for one in asked if one.question.golds]
    impossible = [one for one in asked if one.question.is_impossible]
    sorts: dict[str, Callable[[squad.Question], str]] = {
        "question word": lambda question: first_word(question.question),
        "answer": lambda question: answer_kind(question.golds[0]),
        "context": lambda question: context_length(question.context),
    }
    yield f"| answerable questions | count | EM | F1 |{' wrongly none |' if impossible else ''}"
    yield f"|---|---:|---:|---:|{'---:|' if impossible else ''}"
    yield _row("all", answerable, threshold, refusals=bool(impossible))
    for name, kind in sorts.items():
        groups: dict[str, list[Asked]] = defaultdict(list)
        for one in answerable:
            groups[kind(one.question)].append(one)
        for key in sorted(groups, key=lambda key: -len(groups[key])):
            yield _row(f"{name}: {key}", groups[key], threshold, refusals=bool(impossible))
    if impossible:
        yield ""
        yield from _none(asked, answerable, impossible, threshold)


def _row(name: str, group: Sequence[Asked], threshold: float | None, *, refusals: bool) -> str:
    exact = _percent(squad.exact_match(one.answer, one.question.golds) for one in group)
    row = f"| {name} | {len(group)} | {exact} | {_percent(one.f1(None) for one in group)} |"
    return row + (f" {_percent(_refused(one, threshold) for one in group)} |" if refusals else "")


def _none(
    asked: Sequence[Asked], answerable: Sequence[Asked], impossible: Sequence[Asked], threshold: float | None
) -> Iterator[str]:
    yield '| "none" at threshold | EM | F1 | wrongly none | rightly none |'
    yield "|---|---:|---:|---:|---:|"
    best, _ = squad.best_null_threshold(
        {one.question.id: one.null_odds for one in asked},
        {one.question.id: one.answer for one in asked},
        {one.question.id: one.question.golds for one in asked},
    )
    for name, value in (("shipped", threshold), ("0", 0.0), ("best on this file", best)):
        if value is not None:
            yield (
                f"| {name} ({value:.2f}) "
                f"| {_percent(squad.exact_match(one.given(value), one.question.golds) for one in asked)} "
                f"| {_percent(one.f1(value) for one in asked)} "
                f"| {_percent(_refused(one, value) for one in answerable)} "
                f"| {_percent(_refused(one, value) for one in impossible)} |"
            )


def _refused(one: Asked, threshold: float | None) -> float:
    return float(threshold is not None and one.null_odds > threshold)


def _percent(values: Iterable[float]) -> str:
    found = list(values)
    return f"{100 * fmean(found):.1f}" if found else "-"


def main(arguments: list[str] | None = None) -> int:
    """Print; exit status 2 for unusable input."""
    parser = argparse.ArgumentParser(
        prog="python -m export.kinds",
        description="EM and F1 of an artifact by question word, kind of answer and length of context, "
        'and what its null threshold does, as Markdown. EM and F1 are without "none".',
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an exported artifact")
    parser.add_argument("--limit", type=int, metavar="N", help="a seeded sample of N questions of each file")
    parser.add_argument("--no-kernel", action="store_true", help="keep to the portable graph")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        artifact = load_artifact(options.model)
        answerer = QuestionAnswerer(artifact, kernel=not options.no_kernel)
        for file in options.files:
            questions = usable(file, options.limit)
            print(f"\n{file.name}, {len(questions)} questions, by {answerer.graph.name}:\n")
            print("\n".join(tables(list(ask(answerer, questions, file.name)), artifact.null_threshold)))
    except (QAError, squad.DataError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
