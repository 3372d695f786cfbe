"""Reads the probe set: texts, questions and accepted answers."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("probe_set.toml")


@dataclass(frozen=True, slots=True)
class Probe:
    """A question about a text; `answers` is empty if the text does not contain one."""

    kind: str
    genre: str
    question: str
    context: str
    answers: tuple[str, ...]


@cache
def probe_set() -> tuple[Probe, ...]:
    """All probes, in the order of the file."""
    texts = tomllib.loads(FILE.read_text(encoding="utf-8"))["text"]
    return tuple(
        Probe(asked["kind"], text["genre"], asked["ask"], text["context"], tuple(asked["answers"]))
        for text in texts
        for asked in text["questions"]
    )
