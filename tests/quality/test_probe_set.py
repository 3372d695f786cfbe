"""Accuracy of the default model on the probe set, with each of its graphs; and checks of the set."""

from collections import Counter

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.tokenization import TextTokenizer
from service.settings import DEFAULT_MODEL
from tests.quality.judgement import is_right, judge, table
from tests.quality.probe_set import Probe, probe_set

# Share of the probes that the shipped model must get right.
MIN_ACCURACY = 0.80
KINDS = {
    "distractor", "how long", "how much", "multi-word", "when", "where", "which", "who", "why", "yes-no"
}  # fmt: skip
GENRES = {"contract", "encyclopedia", "mail", "manual", "news", "recipe", "table"}


@pytest.mark.parametrize("graph", ["avx512_vnni", "portable"])
def test_the_default_model_has_the_minimum_accuracy(graph: str) -> None:
    answerer = QuestionAnswerer(load_artifact(DEFAULT_MODEL), kernel=graph == "avx512_vnni")
    if answerer.graph.name != graph:
        pytest.skip(answerer.graph.reason)
    verdicts = judge(answerer, probe_set())
    print(table(verdicts))  # shown with -s and on failure
    assert sum(verdict.right for verdict in verdicts) >= MIN_ACCURACY * len(verdicts)


def test_every_kind_has_8_answerable_and_4_unanswerable_probes() -> None:
    assert len(probe_set()) == 120
    answerable = Counter(probe.kind for probe in probe_set() if probe.answers)
    unanswerable = Counter(probe.kind for probe in probe_set() if not probe.answers)
    assert answerable == dict.fromkeys(KINDS, 8)
    assert unanswerable == dict.fromkeys(KINDS, 4)
    assert {probe.genre for probe in probe_set()} == GENRES
    assert len({(probe.question, probe.context) for probe in probe_set()}) == 120


def test_accepted_answers_are_in_the_text_and_within_max_answer_len() -> None:
    tokenizer = TextTokenizer(load_artifact(DEFAULT_MODEL))
    most = Parameters().max_answer_len
    for probe in probe_set():
        for answer in probe.answers:
            assert answer in probe.context, (probe.question, answer)
        if probe.answers:
            lengths = [len(tokenizer.tokenize(answer, "context").ids) for answer in probe.answers]
            assert min(lengths) <= most, probe.question


def test_some_texts_are_longer_than_one_window() -> None:
    tokenizer = TextTokenizer(load_artifact(DEFAULT_MODEL))
    texts = {probe.context for probe in probe_set()}
    lengths = [len(tokenizer.tokenize(text, "context").ids) for text in texts]
    assert sum(length > Parameters().max_seq_len for length in lengths) >= 4


def test_criterion_of_a_correct_answer() -> None:
    probe = Probe("how long", "manual", "?", "about 25 minutes or so", ("about 25 minutes",))
    assert is_right(probe, "About 25 minutes.")
    assert is_right(probe, "25 minutes")  # F1 is 0.8
    assert not is_right(probe, "minutes")
    assert not is_right(probe, "")
    nothing = Probe("how long", "manual", "?", "text", ())
    assert is_right(nothing, "")
    assert not is_right(nothing, "text")
