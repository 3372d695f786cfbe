"""Owns the comparison of the engine with the transformers pipeline; knows no export stage.

`python -m export.parity --model HF_FOLDER --artifact FP32_ARTIFACT --squad FILE` asks both the
same questions and lists every difference in answer, place or score.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.engine.answering import Answer, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters

TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Difference:
    """One question answered otherwise; answers are lists when top_k asked for several."""

    question: str
    windows: int
    reference: list[Answer]
    ours: list[Answer]


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison found; `questions` and `several_windows` are counts."""

    questions: int
    several_windows: int
    largest_score_error: float
    differences: list[Difference]


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
    """Ask both every (question, context) pair.

    Where several windows are needed, the engine is asked for upstream's per-window scores: its
    own default makes the windows comparable, which upstream did not.
    """
    parameters = parameters or Parameters()
    questions = several = 0
    largest = 0.0
    differences = []
    for question, context in items:
        prepared = answerer.prepare(question, context, parameters)
        if len(prepared.windows) > 1:
            several += 1
            prepared = replace(prepared, parameters=replace(parameters, scoring="per_window"))
        ours = answerer.decode(prepared, answerer.infer(prepared.windows))
        theirs = list(ask(reference, question, context, parameters))
        questions += 1
        error = max((abs(a.score - b.score) for a, b in zip(theirs, ours, strict=False)), default=0.0)
        same = [(a.answer, a.start, a.end) for a in ours] == [(a.answer, a.start, a.end) for a in theirs]
        if same:
            largest = max(largest, error)
        if not same or error > TOLERANCE:
            differences.append(Difference(question, len(prepared.windows), theirs, ours))
    return Parity(questions, several, largest, differences)


def ask(reference: Any, question: str, context: str, parameters: Parameters) -> Iterator[Answer]:
    """The pipeline's answers as the engine gives them, best first."""
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
    """Compare and list; exit status 1 where anything differs."""
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
    for difference in parity.differences:
        print(f"{difference.windows} window(s): {difference.question}")
        print(f"  reference {difference.reference}")
        print(f"  ours      {difference.ours}")
    print(
        f"{parity.questions} questions, {parity.several_windows} of several windows: "
        f"{len(parity.differences)} differences; "
        f"largest score error of equal answers {parity.largest_score_error:.2e}"
    )
    return 1 if parity.differences else 0


if __name__ == "__main__":
    sys.exit(main())
