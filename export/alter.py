"""Owns unanswerable questions made by altering answered ones: `python -m export.alter`; trains nothing."""

import argparse
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from export import squad
from export.finetune.sources import write_squad
from export.passages import read_questions
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.errors import QAError

SAME = 0.5  # F1 with an annotated answer from which the engine's answer counts as the same
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_YEAR = re.compile(r"1[0-9]{3}|20[0-9]{2}")
_NAME = re.compile(r"\b[A-Z][\w'’-]{2,}(?: (?:of |the |de |von )?[A-Z][\w'’-]*)*")
_NEGATED = re.compile(r"\b(did|does|do|was|were|is|are|has|have|had|could|would|should)\b(?! not\b)")
_OPPOSITES = (
    "first last, earliest latest, oldest newest, oldest youngest, older younger, largest smallest, larger "
    "smaller, biggest smallest, bigger smaller, highest lowest, higher lower, longest shortest, longer "
    "shorter, most least, best worst, better worse, before after, began ended, started ended, opened "
    "closed, open close, won lost, win lose, winner loser, increase decrease, increased decreased, rise "
    "fall, rose fell, gain lose, gained lost, major minor, main minor, majority minority, maximum "
    "minimum, increase reduce, early late, old new, old young, north south, northern southern, east west, "
    "eastern western, inside outside, above below, over under, supported opposed, agree disagree, accept "
    "reject, accepted rejected, allow forbid, allowed forbidden, legal illegal, true false, good bad, "
    "strong weak, rich poor, hot cold, fast slow, male female, men women, king queen, father mother, son "
    "daughter, brother sister, husband wife, born killed, public private, internal external, positive "
    "negative, successful unsuccessful, common rare, include exclude, includes excludes, included "
    "excluded, add remove, arrive leave, arrived left, buy sell, bought sold, built destroyed, create "
    "destroy, created destroyed, cause prevent, caused prevented, help hinder, love hate, remember "
    "forget, same different, similar different, always never, upper lower, top bottom, front back, left "
    "right, modern ancient, rural urban"
)
_PAIRS = [tuple(pair.split()) for pair in _OPPOSITES.split(", ")]


@dataclass(frozen=True, slots=True)
class Altered:
    """A question with one changed word or name, and the rule that changed it."""

    question: squad.Question  # as it was
    text: str
    rule: str


def alter(questions: Sequence[squad.Question], seed: int) -> Iterator[Altered]:
    """At most one altered text per answered question, by a rule drawn at random from those that apply.

    Rules, after the kinds of unanswerable questions in SQuAD 2.0 (Rajpurkar, Jia and Liang 2018, table 2):
    a name or number exchanged for another one of the article, an opposite, a negation. The latter for a tenth
    of the questions, since "not" alone must not mean "no answer".
    """
    rng = random.Random(seed)  # repeatable, not secret
    articles: dict[str, dict[str, None]] = defaultdict(dict)  # title: its contexts
    for question in questions:
        articles[question.title][question.context] = None
    for question in questions:
        if not question.answers:
            continue
        found = {
            "name": _exchange_name(question, articles[question.title], rng),
            "number": _exchange_number(question, articles[question.title], rng),
            "opposite": _oppose(question.question, rng),
            "negation": _NEGATED.sub(r"\1n't", question.question, count=1) if rng.random() < 0.1 else None,
        }
        altered = [
            Altered(question, text, rule)
            for rule, text in found.items()
            if text and text != question.question
        ]
        if altered:
            yield rng.choice(altered)


def unanswerable(answerer: QuestionAnswerer, altered: Sequence[Altered]) -> Iterator[Altered]:
    """Those to which the engine gives the answer of the original question.

    That answer is wrong after the change, so the question has none, and the model does not notice. If the
    engine answers something else, the altered question may have an answer of its own.
    """
    for one in tqdm(altered, unit="question", mininterval=2, leave=False):
        ((best,),) = answerer.answer([(one.text, one.question.context)])
        if squad.f1(best.answer, one.question.golds) >= SAME:
            yield one


def _exchange_name(question: squad.Question, contexts: Collection[str], rng: random.Random) -> str | None:
    """Another name of similar length after the same word, so that places follow "in"."""
    text = question.question
    names = [found for found in _NAME.finditer(text) if found.start() and found[0] in question.context]
    rng.shuffle(names)
    for name in names:
        if altered := _exchange(name, _similar_name, question, contexts, rng):
            return altered
    return None


def _exchange_number(question: squad.Question, contexts: Collection[str], rng: random.Random) -> str | None:
    """Another number of the same kind, year or not."""
    numbers = list(_NUMBER.finditer(question.question))
    return _exchange(rng.choice(numbers), _similar_number, question, contexts, rng) if numbers else None


def _similar_name(name: re.Match[str], other: re.Match[str]) -> bool:
    return _word_before(name) == _word_before(other) and abs(name[0].count(" ") - other[0].count(" ")) <= 1


def _similar_number(number: re.Match[str], other: re.Match[str]) -> bool:
    return bool(_YEAR.fullmatch(number[0])) == bool(_YEAR.fullmatch(other[0]))


def _exchange(
    part: re.Match[str],
    similar: Callable[[re.Match[str], re.Match[str]], bool],
    question: squad.Question,
    contexts: Collection[str],
    rng: random.Random,
) -> str | None:
    """The question with another, similar match of the same pattern; from its passage if that has one."""
    for places in ((question.context,), contexts):
        others = {
            found[0]
            for context in places
            for found in part.re.finditer(context)
            if similar(part, found) and not _touches(found[0], question.question, question.golds)
        }
        if others:
            return _replaced(part, rng.choice(sorted(others)))
    return None


def _replaced(part: re.Match[str], text: str) -> str:
    return part.string[: part.start()] + text + part.string[part.end() :]


def _word_before(part: re.Match[str]) -> str:
    start = part.start()
    return part.string[max(start - 20, 0) : start].rstrip().rpartition(" ")[2].casefold()


def _touches(name: str, text: str, golds: Collection[str]) -> bool:
    """Whether `name` shares a word with the question or an answer."""
    words = set(name.casefold().split())
    return any(words & set(other.casefold().replace("?", "").split()) for other in (text, *golds))


def _oppose(text: str, rng: random.Random) -> str | None:
    """One word exchanged for its opposite, in either direction."""
    fits = [
        (found, second)
        for pair in _PAIRS
        for first, second in (pair, pair[::-1])
        for found in re.finditer(rf"\b{first}\b", text)
    ]
    if not fits:
        return None
    return _replaced(*rng.choice(fits))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 unusable input."""
    parser = argparse.ArgumentParser(
        prog="python -m export.alter",
        description="Make unanswerable training questions from answered ones: a name or number exchanged, "
        "an opposite, a negation. Kept are those to which the model still gives the old answer.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an exported artifact")
    parser.add_argument(
        "--train", type=Path, nargs="+", required=True, metavar="FILE", help="SQuAD or plain-text files"
    )
    parser.add_argument("--hold-out", nargs="+", default=[], metavar="TITLE", help="articles to leave out")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="SQuAD 2.0 file to write")
    options = parser.parse_args(arguments)
    try:
        answerer = QuestionAnswerer(load_artifact(options.model))
        questions = [
            question
            for file in options.train
            for question in read_questions(file).questions
            if question.title not in options.hold_out
        ]
        altered = list(alter(questions, options.seed))
        kept = list(unanswerable(answerer, altered))
    except (QAError, squad.DataError) as error:
        print(error, file=sys.stderr)
        return 2
    written = [
        replace(one.question, question=one.text, answers=(), golds=(), is_impossible=True) for one in kept
    ]
    write_squad(options.output, written)
    rules = ", ".join(f"{rule} {count}" for rule, count in Counter(one.rule for one in kept).most_common())
    print(f"{len(questions)} questions, {len(altered)} altered, {len(kept)} kept: {rules}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
