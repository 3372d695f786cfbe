"""Synthetic data in SQuAD format about boxes in rooms, and helpers that train on it and tokenize it."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from export.finetune.examples import Example, Feature, build_features
from export.squad import Answer

COLOURS = ("red", "blue", "green", "white", "black", "yellow")
THINGS = ("rope", "lamp", "coin", "map", "key", "drum", "shell", "letter")


def paragraphs() -> list[dict[str, Any]]:
    """Rooms of two boxes each; a question asks what one of them holds."""
    result = []
    for i in range(20):
        a, b = COLOURS[i % 6], COLOURS[(i + 1 + i // 6) % 6]
        x, y = THINGS[(3 * i) % 8], THINGS[(3 * i + 1) % 8]
        context = f"Room {i} is small. The {a} box holds a {x}. The {b} box holds a {y}."
        qas = [
            {
                "id": f"{i}-{colour}",
                "question": f"What does the {colour} box hold?",
                "answers": [
                    {"text": thing, "answer_start": context.index(thing)},
                    {"text": f"a {thing}", "answer_start": context.index(f"a {thing}")},
                ],
            }
            for colour, thing in ((a, x), (b, y))
        ]
        result.append({"context": context, "qas": qas})
    return result


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Rooms", "paragraphs": content}]}))
    return path


def corpus() -> list[str]:
    return [p["context"] for p in paragraphs()] + [q["question"] for p in paragraphs() for q in p["qas"]]


def command(base: Path | str, squad: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--base", str(base), "--train", str(squad), "--output", str(output)),
        *("--no-compile", "--precision", "fp32", "--device", "cpu"),
        *("--max-seq-length", "128", "--doc-stride", "32", "--batch-size", "8", "--seed", "3"),
        *("--epochs", "2", "--train-embeddings", *more),
    ]


def features_of(
    tokenizer: PreTrainedTokenizerFast, context: str, *texts: str, question: str = "What does it hold?"
) -> list[Feature]:
    answers = tuple(Answer(text, context.index(text)) for text in texts)
    return list(build_features([Example(question, context, answers)], tokenizer, 128, 32))


def covered(feature: Feature, start: int, end: int) -> str:
    return feature.example.context[feature.offsets[start, 0] : feature.offsets[end, 1]]
