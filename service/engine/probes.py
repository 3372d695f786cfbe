"""Owns the probe texts, written for this project, short to long; knows no use of them."""

import json
from pathlib import Path


def probes() -> list[tuple[str, str]]:
    """(question, context) pairs, several per context."""
    content = json.loads((Path(__file__).parent / "probes.json").read_text(encoding="utf-8"))
    return [(question, entry["context"]) for entry in content for question in entry["questions"]]
