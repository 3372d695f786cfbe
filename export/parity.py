"""Owns the comparison of the engine with the transformers pipeline; knows no export stage.

`python -m export.parity --model HF_FOLDER --artifact FP32_ARTIFACT --squad FILE` runs the same questions on
both and lists every difference in answer, offsets or score. The engine uses upstream's alignment rules for
this; deviations due to its own rules (docs/differences.md) are listed separately and do not count.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from service.engine.answering import Answer, Prepared, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.spans import TokenSpan
from service.engine.tokenization import NO_WORD
from service.engine.windowing import Window

TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Difference:
    """A question with different answers; answers are lists if top_k is above 1."""

    question: str
    windows: int
    reference: list[Answer]
    ours: list[Answer]


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of a comparison; `questions` and `several_windows` are counts.

    `differences` are those with upstream's alignment rules, `intended` those due to the engine's own rules.
    """

    questions: int
    several_windows: int
    largest_score_error: float
    differences: list[Difference]
    intended: list[Difference]


def load_reference(model: str) -> Any:
    """The question-answering pipeline of transformers 4.x (removed in 5.3), fp32 on the CPU."""
    from transformers import pipeline

    return pipeline("question-answering", model=model, tokenizer=model, device="cpu", dtype="float32")


def compare(
    reference: Any,
    answerer: QuestionAnswerer,
    items: Iterable[tuple[str, str]],
    parameters: Parameters | None = None,
) -> Parity:
    """Compare the answers to every (question, context) pair.

    For several windows the engine uses upstream's per-window scores; its own default normalizes over all
    windows.
    """
    tokenizer = Tokenizer.from_str(reference.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    parameters = parameters or Parameters()
    questions = several = 0
    largest = 0.0
    differences, intended = [], []
    for question, context in items:
        prepared = answerer.prepare(question, context, parameters)
        if len(prepared.windows) > 1:
            several += 1
            prepared = replace(prepared, parameters=replace(parameters, scoring="per_window"))
        logits = answerer.infer(prepared.windows)
        served = answerer.decode(prepared, logits)
        # Ours may be corrected: see tokenization.
        offsets = tokenizer.encode(context, add_special_tokens=False).offsets
        tokens = replace(prepared.tokens, offsets=np.array(offsets, dtype=np.int64).reshape(-1, 2))
        ours = answerer.decode(replace(prepared, tokens=tokens), logits, upstream_place)
        theirs = list(ask(reference, question, context, parameters))
        questions += 1
        error = max((abs(a.score - b.score) for a, b in zip(theirs, ours, strict=False)), default=0.0)
        same = [(a.answer, a.start, a.end) for a in ours] == [(a.answer, a.start, a.end) for a in theirs]
        if same:
            largest = max(largest, error)
        if not same or error > TOLERANCE:
            differences.append(Difference(question, len(prepared.windows), theirs, ours))
        elif served != ours:
            intended.append(Difference(question, len(prepared.windows), theirs, served))
    return Parity(questions, several, largest, differences, intended)


def upstream_place(prepared: Prepared, window: Window, span: TokenSpan) -> tuple[int, int]:
    """The pipeline's offsets of a token span, aligned to words of the window if requested."""
    first, last = window.first + span.first, window.first + span.last
    words, offsets = prepared.tokens.words, prepared.tokens.offsets
    if prepared.parameters.align_to_words and NO_WORD not in (words[first], words[last]):
        inside = words[window.first : window.last]
        first = window.first + int(np.flatnonzero(inside == words[first])[0])
        last = window.first + int(np.flatnonzero(inside == words[last])[-1])
    return int(offsets[first, 0]), int(offsets[last, 1])


def ask(reference: Any, question: str, context: str, parameters: Parameters) -> Iterator[Answer]:
    """The pipeline's answers in the engine's format, best first."""
    found = reference(
        question=question,
        context=context,
        top_k=parameters.top_k,
        max_answer_len=parameters.max_answer_len,
        max_seq_len=parameters.max_seq_len,
        doc_stride=parameters.doc_stride,
        handle_impossible_answer=parameters.handle_impossible_answer,
        align_to_words=parameters.align_to_words,
    )
    for answer in found if isinstance(found, list) else [found]:
        yield Answer(answer["answer"], answer["start"], answer["end"], answer["score"])


def squad_pairs(file: Path, limit: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """(question, context) pairs of a SQuAD file, in order; with `limit`, a seeded sample."""
    data = json.loads(file.read_text(encoding="utf-8"))["data"]
    pairs = [
        (qa["question"], paragraph["context"])
        for article in data
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    return pairs if limit is None else random.Random(seed).sample(pairs, limit)


def main() -> int:
    """Compare and list; exit status 1 if there are differences."""
    parser = argparse.ArgumentParser(prog="python -m export.parity", description=__doc__)
    parser.add_argument("--model", required=True, help="Hugging Face folder or hub id")
    parser.add_argument("--artifact", required=True, type=Path, help="its fp32 artifact")
    parser.add_argument("--squad", required=True, type=Path, help="a SQuAD file")
    parser.add_argument("--limit", type=int, help="compare a seeded sample of this size")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = squad_pairs(options.squad, options.limit, options.seed)
    parity = compare(
        load_reference(options.model),
        QuestionAnswerer(load_artifact(options.artifact)),
        tqdm(pairs, unit="question"),
    )
    for kind, found in (("difference", parity.differences), ("intended", parity.intended)):
        for difference in found:
            print(f"{kind}, {difference.windows} window(s): {difference.question}")
            print(f"  reference {difference.reference}")
            print(f"  ours      {difference.ours}")
    print(
        f"{parity.questions} questions, {parity.several_windows} of several windows: "
        f"{len(parity.differences)} differences, {len(parity.intended)} intended; "
        f"largest score error of equal answers {parity.largest_score_error:.2e}"
    )
    return 1 if parity.differences else 0


if __name__ == "__main__":
    sys.exit(main())
