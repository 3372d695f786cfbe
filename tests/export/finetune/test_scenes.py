"""Generated passages and questions about invented things."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.finetune.scenes import Generator, main, render
from export.squad import Question, read_squad
from tests.quality.probe_set import probe_set

SHARED_WORDS = 6  # consecutive words from which a text counts as shared


def questions_about(kind: str, passages: int, seed: int) -> Iterator[Question]:
    """All questions about things of one kind."""
    generator = Generator(seed)
    (scene,) = [scene for scene in generator.scenes if scene.kind == kind]
    generator.scenes[:] = [scene]
    for made in generator.passages(passages):
        yield from made


def test_every_template_has_known_slots() -> None:
    for scene in Generator(0).scenes:
        for fact in scene.facts:
            assert fact.say
            assert any("{entity}" in text for text, _ in fact.ask)  # passages of several things need it
            for text in (*fact.say, *(text for text, _ in fact.ask)):
                assert set(re.findall(r"{(.*?)}", text)) <= {"entity", *scene.slots}, text
            for way in fact.say:
                assert {slot for _, slot in fact.ask} <= set(re.findall(r"{(.*?)}", way)), way
        said = " ".join(way for fact in scene.facts for way in fact.say)
        assert set(scene.slots) <= set(re.findall(r"{(.*?)}", said)), scene.kind


def test_the_same_seed_gives_the_same_passages() -> None:
    first, again, other = (list(Generator(seed).passages(20)) for seed in (1, 1, 2))
    assert first == again != other


def test_answers_are_where_they_are_said_to_be_and_half_of_the_questions_have_none() -> None:
    questions = [one for made in Generator(3).passages(300) for one in made]
    assert 0.4 < sum(one.is_impossible for one in questions) / len(questions) < 0.6
    for one in questions:
        assert not re.search("[{}]", one.question + one.context)
        for answer in one.answers:
            assert one.context[answer.start :].startswith(answer.text)


def test_the_same_question_has_no_answer_only_for_the_other_thing() -> None:
    """Of questions without an answer, many ask what the passage states about another of its things."""
    managers = 0
    for one in questions_about("team", passages=300, seed=4):
        if one.is_impossible and "manage" in one.question.casefold():
            entity = re.split(r"manages |manager of ", one.question, flags=re.IGNORECASE)[1].rstrip("?")
            stated = re.findall(
                r"(?:manages|manager of) ([^.]*?)(?: is|\.)", one.context, flags=re.IGNORECASE
            )
            assert entity.casefold() not in [name.casefold() for name in stated]
            managers += bool(stated)
    assert managers > 5


def test_some_questions_are_about_something_that_the_passage_does_not_mention() -> None:
    unmentioned = 0
    for one in questions_about("shipment", passages=200, seed=5):
        found = re.search(r"(?:shipment|order|container|pallet) \d+", one.question)
        if found and found[0] not in one.context.casefold():
            assert one.is_impossible
            unmentioned += 1
    assert unmentioned > 20


def test_rendering_gives_the_spans_of_the_slots() -> None:
    text, spans = render("{a} beat {b}.", {"a": "the blue team", "b": "Vera"})
    assert text == "The blue team beat Vera."
    assert render("It closes at {a}.", {"a": "1 p.m."}) == ("It closes at 1 p.m.", {"a": (13, 19)})
    assert {slot: text[start:end] for slot, (start, end) in spans.items()} == {
        "a": "The blue team",
        "b": "Vera",
    }


def test_nothing_of_the_probe_set_is_trained_on() -> None:
    generated = {
        run
        for made in Generator(5).passages(2000)
        for one in made
        for text in (one.question, one.context)
        for run in runs(text)
    }
    shared = {
        run for one in probe_set() for text in (one.question, one.context) for run in runs(text)
    } & generated
    assert not shared


def runs(text: str) -> list[tuple[str, ...]]:
    """All runs of so many consecutive words."""
    words = re.findall(r"\w+", text.casefold())
    return [tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)]


def test_the_command_writes_a_squad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scenes.json"
    assert main(["--passages", "10", "--seed", "1", "--output", str(output)]) == 0
    file = read_squad(output)
    assert (len(file.questions), file.bad_count) == (sum(map(len, Generator(1).passages(10))), 0)
    assert f"{len(file.questions)} questions about 10 passages" in capsys.readouterr().err
