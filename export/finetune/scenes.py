"""Owns passages and questions about invented things: `python -m export.finetune.scenes`; knows no model."""

import argparse
import random
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.finetune.sources import write_squad
from export.squad import Answer, Question

TEXTS = Path(__file__).with_name("scenes.toml")
_PRONOUN = re.compile(r"(?:It|Its) ")
_BRACES = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Fact:
    """Ways to state a fact, and questions with the slots that answer them."""

    say: tuple[str, ...]
    ask: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be said about one kind of thing; a slot has the name of a kind of value, or a choice."""

    kind: str
    extra: tuple[str, ...]
    slots: Mapping[str, str | list[str]]
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class _Entity:
    """An invented thing: its values by slot and the facts that the passage states, by index."""

    values: Mapping[str, str]
    said: tuple[int, ...]


class Generator:
    """Draws passages from the scenes of a TOML file; the same seed gives the same passages."""

    def __init__(self, seed: int, texts: Path = TEXTS) -> None:
        """Read the scenes."""
        content = tomllib.loads(texts.read_text(encoding="utf-8"))
        self._rng = random.Random(seed)  # repeatable, not secret
        self._words: dict[str, list[str]] = {name: text.split() for name, text in content["values"].items()}
        self._kinds: dict[str, list[str]] = content["kinds"]
        self.scenes = [_scene(entry) for entry in content["scene"]]

    def passages(self, count: int) -> Iterator[list[Question]]:
        """`count` passages' questions, about half of them without an answer.

        A passage is about one to three things of the same kind. Questions without an answer ask for a fact
        that it does not state, preferably one that it states about another thing; some are about a thing
        that it does not mention.
        """
        for number in range(count):
            yield self._passage(self._rng.choice(self.scenes), f"scene {number}")

    def _passage(self, scene: Scene, title: str) -> list[Question]:
        entities = self._entities(scene)
        context, spans = self._context(scene, entities)
        questions = []
        answerable = [(i, fact) for i, entity in enumerate(entities) for fact in entity.said]
        absent = [
            (i, fact)
            for i, entity in enumerate(entities)
            for fact in range(len(scene.facts))
            if fact not in entity.said
        ]
        self._rng.shuffle(answerable)
        self._rng.shuffle(absent)
        absent.sort(key=lambda one: not any(one[1] in entity.said for entity in entities))  # stable
        for i, fact in (*answerable[:2], *absent[:2]):
            text, slot = self._ask(scene.facts[fact], entities[i], alone=len(entities) == 1)
            span = spans.get((i, fact, slot))  # None if the passage does not state it
            answers = (Answer(context[slice(*span)], span[0]),) if span else ()
            golds = tuple(answer.text for answer in answers)
            questions.append(Question("", title, text, context, answers, golds, is_impossible=not answers))
        return questions

    def _entities(self, scene: Scene) -> list[_Entity]:
        """One to three things without a common value, and the facts to state: six or so in all.

        In a quarter of the passages the last of several things is not mentioned.
        """
        used: set[str] = set()
        entities = []
        number = self._rng.choice((1, 1, 2, 2, 3))
        for _ in range(number):
            values = {}
            for slot, kind in {"entity": scene.kind, **scene.slots}.items():
                for _ in range(21):  # choices may have fewer values than needed
                    value = self._value(kind)
                    if value not in used:
                        break
                used.add(value)
                values[slot] = value
            facts = range(len(scene.facts))
            wanted = min(self._rng.randint(4, 7) if number == 1 else self._rng.randint(2, 3), len(facts) - 1)
            entities.append(_Entity(values, tuple(self._rng.sample(facts, wanted))))
        if number > 1 and self._rng.random() < 0.25:
            entities[-1] = _Entity(entities[-1].values, ())
        return entities

    def _context(
        self, scene: Scene, entities: Sequence[_Entity]
    ) -> tuple[str, dict[tuple[int, int, str], tuple[int, int]]]:
        """The text, and the spans of the values by entity, fact and slot."""
        order = [(i, fact) for i, entity in enumerate(entities) for fact in entity.said]
        if self._rng.random() < 0.5:
            self._rng.shuffle(order)
        text = ""
        spans: dict[tuple[int, int, str], tuple[int, int]] = {}
        for i, fact in order:
            if text:
                text += " "
            ways = [
                way
                for way in scene.facts[fact].say
                if not _PRONOUN.match(way) or (text and len(entities) == 1)
            ]
            sentence, found = render(self._rng.choice(ways), entities[i].values)
            for slot, (start, end) in found.items():
                spans[i, fact, slot] = (len(text) + start, len(text) + end)
            text += sentence
            if self._rng.random() < 0.2:
                text += " " + self._rng.choice(scene.extra)
        return text, spans

    def _ask(self, fact: Fact, entity: _Entity, *, alone: bool) -> tuple[str, str]:
        """A question and its slot; without the thing's name only if the passage has one thing."""
        text, slot = self._rng.choice([one for one in fact.ask if alone or "{entity}" in one[0]])
        text, _ = render(text, entity.values)
        informal = self._rng.random()
        if informal < 0.15:
            text = text.rstrip("?")
        return (text.lower() if informal < 0.1 else text), slot

    def _value(self, kind: str | list[str]) -> str:
        if isinstance(kind, list):
            return self._rng.choice(kind)
        return _BRACES.sub(self._fill, self._rng.choice(self._kinds[kind]))

    def _fill(self, found: re.Match[str]) -> str:
        name, _, span = found[1].partition(":")
        if name != "n":
            return self._rng.choice(self._words[name])
        low, high = span.split("-")
        return str(self._rng.randint(int(low), int(high)))


def render(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The sentence, with a capital first letter, and the spans of its slots (the last of repeated ones)."""
    text = ""
    spans = {}
    for number, part in enumerate(_BRACES.split(template)):
        if number % 2:
            spans[part] = (len(text), len(text) + len(values[part]))
        text += values[part] if number % 2 else part
    if text.endswith(".."):  # an abbreviation such as "p.m." ends the sentence
        text = text[:-1]
    return text[:1].upper() + text[1:], spans


def _scene(entry: Mapping[str, Any]) -> Scene:
    facts = tuple(Fact(tuple(fact["say"]), tuple(fact["ask"].items())) for fact in entry["fact"])
    return Scene(entry["kind"], tuple(entry["extra"]), entry["slots"], facts)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: written."""
    parser = argparse.ArgumentParser(
        prog="python -m export.finetune.scenes",
        description="Write training questions about invented companies, devices, contracts and the like, "
        "half of them without an answer: the passage states the fact about something else, or not at all.",
    )
    parser.add_argument(
        "--passages", type=int, default=4000, help="four questions each (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="SQuAD 2.0 file to write")
    options = parser.parse_args(arguments)
    questions = [one for made in Generator(options.seed).passages(options.passages) for one in made]
    write_squad(options.output, questions)
    print(f"{len(questions)} questions about {options.passages} passages", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
