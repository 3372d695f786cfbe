"""Owns hard negatives: unanswerable examples made from answered questions; knows no token."""

import random
import re
from collections.abc import Iterator, Sequence

from rank_bm25 import BM25Okapi

from export.squad import Question

NEAREST = 20  # BM25 candidates per question
_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Negatives:
    """Finds contexts in the same file that do not answer a question, so that style is no cue.

    Two alternating rules: the most similar passage by BM25 without any of the annotated answers, and the
    question's own passage without the sentences of its answers. (Clark and Gardner 2018 used the nearest
    paragraphs of the same article by TF-IDF; random paragraphs are trivial to tell apart by topic.)
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        """Index the contexts of `questions`."""
        self._contexts = list(dict.fromkeys(question.context for question in questions))
        self._asked = {(question.question.casefold(), question.context) for question in questions}
        self._index = BM25Okapi([_words(context) for context in self._contexts])

    def make(self, questions: Sequence[Question], count: int, seed: str) -> Iterator[tuple[Question, str]]:
        """At most `count` pairs of an answered question and a context without its answers.

        Questions are sampled without replacement, repeatedly if necessary. If one rule finds no context, the
        other is tried; if neither does, the question is skipped.
        """
        rng = random.Random(seed)  # repeatable, not secret
        order = [i for _ in range(count // max(len(questions), 1)) for i in range(len(questions))]
        order += rng.sample(range(len(questions)), count - len(order))
        for number, i in enumerate(order):
            question = questions[i]
            first, second = (self._similar, self._cut) if number % 2 else (self._cut, self._similar)
            context = first(question) or second(question)
            if context is not None:
                yield question, context

    def _similar(self, question: Question) -> str | None:
        scores = self._index.get_scores(_words(question.question))
        for i in scores.argsort(kind="stable")[::-1][:NEAREST].tolist():
            context = self._contexts[int(i)]
            if (question.question.casefold(), context) not in self._asked and _lacks(context, question):
                return context
        return None

    def _cut(self, question: Question) -> str | None:
        kept = []
        for start, sentence in _sentences(question.context):
            end = start + len(sentence)
            if not any(start < a.start + len(a.text) and a.start < end for a in question.answers):
                kept.append(sentence)
        context = " ".join(kept)
        return context if kept and _lacks(context, question) else None


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """Approximate sentences and their offsets."""
    start = 0
    for gap in _SENTENCE.finditer(text):
        yield start, text[start : gap.start()]
        start = gap.end()
    yield start, text[start:]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _lacks(context: str, question: Question) -> bool:
    folded = context.casefold()
    return not any(gold.casefold() in folded for gold in question.golds)
