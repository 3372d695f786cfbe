"""Owns the questions of a benchmark, from a file or built in, at given lengths; runs nothing."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.engine.artifact import Artifact
from service.engine.probes import probes
from service.engine.tokenization import TextTokenizer
from service.errors import QAError


@dataclass(frozen=True, slots=True)
class Item:
    """A question; `tokens` counts question, context and special tokens in one window."""

    question: str
    context: str
    tokens: int


def load(file: Path | None, artifact: Artifact) -> list[Item]:
    """The questions of a SQuAD or JSON Lines file (`question`, `context`); None: the built-in ones.

    Raises QAError for a file without questions.
    """
    pairs = probes() if file is None else _read(file)
    tokenizer = TextTokenizer(artifact)
    return [Item(q, c, _count(tokenizer, q, c)) for q, c in pairs]


def of_length(items: list[Item], tokens: int, artifact: Artifact) -> list[Item]:
    """Questions of `items` with contexts such that each has exactly `tokens`, or the next lower number.

    Contexts are truncated at a token boundary, or extended with the contexts of other items.
    """
    tokenizer = TextTokenizer(artifact)
    contexts = [item.context for item in items]
    made = []
    for number, item in enumerate(items[:200]):
        room = tokens - _count(tokenizer, item.question, "")
        if room < 1:
            continue
        text, others = item.context, itertools.cycle(contexts[number + 1 :] + contexts[: number + 1])
        cut = tokenizer.tokenize(text, "context")
        while len(cut.ids) < room:
            text += "\n" + next(others)
            cut = tokenizer.tokenize(text, "context")
        made.append(Item(item.question, text[: cut.offsets[room - 1][1]], tokens))
    if not made:
        raise QAError(f"No question is short enough for a length of {tokens} tokens.")
    return made


def _count(tokenizer: TextTokenizer, question: str, context: str) -> int:
    parts = [question, context] if context else [question]
    return tokenizer.template.specials + sum(len(tokenizer.tokenize(part, "context").ids) for part in parts)


def _read(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
        pairs = (
            _squad(json.loads(text)) if text.lstrip().startswith('{"') and '"data"' in text else _lines(text)
        )
    except OSError as error:
        raise QAError(f"The questions in {file} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise QAError(
            f"{file} is neither a SQuAD file nor lines of JSON with question and context "
            f"({type(error).__name__})."
        ) from error
    pairs = [(question, context) for question, context in pairs if question and context]
    if not pairs:
        raise QAError(f"{file} holds no question.")
    return pairs


def _squad(content: Any) -> list[tuple[str, str]]:
    return [
        (str(asked["question"]), str(paragraph["context"]))
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


def _lines(text: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [(str(row["question"]), str(row["context"])) for row in rows]
