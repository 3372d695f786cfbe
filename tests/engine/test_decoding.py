"""From logits to answers with every kind of tokenizer: merging of equal texts, and offsets of answers."""

from dataclasses import replace

import numpy as np
import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from service.engine.answering import Answer, QuestionAnswerer
from service.engine.decoding import whole_words
from service.engine.parameters import Parameters
from service.engine.spans import normalise, top_spans
from service.engine.windowing import Prepared, WindowLogits
from tests.answerers import answerer_of, answerer_with
from tests.texts import TEXTS
from tests.tokenizer_kinds import BERT, KINDS, add_template

TOWNS = (
    "The prize went to Rene\u0301. The towns of Orm, \u00c5re and Malmo\u0308 sent Zo\u00eb a flag: "
    "\U0001f1f8\U0001f1ea\U0001f1f3\U0001f1f4!"
)
JAPANESE = (
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3042\u308a\u3001"
    "\u30ab\u30e1\u30e9\u306e\u753a\u3067\u3059\u3002"
)
THAI = (
    "\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e\u0e40\u0e1b\u0e47\u0e19\u0e40\u0e21\u0e37\u0e2d\u0e07"
    "\u0e2b\u0e25\u0e27\u0e07\u0e02\u0e2d\u0e07\u0e1b\u0e23\u0e30\u0e40\u0e17\u0e28\u0e44\u0e17\u0e22"
)


def random_logits(prepared: Prepared, seed: int) -> list[WindowLogits]:
    random = np.random.default_rng(seed)
    sizes = [len(window.ids) for window in prepared.windows]
    return [WindowLogits(*random.normal(0, 4, (2, size)).astype(np.float32)) for size in sizes]


def logits_for(prepared: Prepared, first: int, last: int) -> list[WindowLogits]:
    """Logits that favour one span of context tokens, for a context of one window."""
    (window,) = prepared.windows
    start, end = np.full((2, len(window.ids)), -9, dtype=np.float32)
    start[window.context_at + first] = end[window.context_at + last] = 9
    return [WindowLogits(start, end)]


def every_span(
    answerer: QuestionAnswerer, context: str, parameters: Parameters
) -> list[tuple[Prepared, Answer]]:
    """The best answer for logits that favour each span in turn."""
    prepared = answerer.prepare("Which?", context, parameters)
    tokens = len(prepared.tokens.ids)
    return [
        (prepared, answerer.decode(prepared, logits_for(prepared, first, last))[0])
        for first in range(tokens)
        for last in range(first, min(first + parameters.max_answer_len, tokens))
    ]


def check_ends(context: str, answer: Answer) -> None:
    assert context[answer.start : answer.end] == answer.answer
    assert answer.answer.strip() == answer.answer != ""
    boundaries = {0, *(match.end() for match in regex.finditer(r"\X", context))}
    assert {answer.start, answer.end} <= boundaries


def check_words(context: str, answer: Answer) -> None:
    """Neither end splits a word of a script with spaces, unless the word has 100 letters or more."""
    for at in (answer.start, answer.end):
        around = regex.compile(r"(?r)\p{WB=ALetter}*").match(context, 0, at).group() + (
            regex.compile(r"\p{WB=ALetter}*").match(context, at).group()
        )
        inside = 0 < at < len(context) and regex.fullmatch(r"\p{WB=ALetter}{2}", context[at - 1 : at + 1])
        assert not inside or len(around) >= 100


@pytest.mark.parametrize("kind", KINDS)
@given(
    context=TEXTS,
    seed=st.integers(0, 1000),
    top_k=st.integers(1, 8),
    longest=st.integers(1, 20),
    align=st.booleans(),
    null=st.booleans(),
    scoring=st.sampled_from(["global", "per_window"]),
)
@settings(max_examples=60)
def test_answers_of_any_logits(
    kind: str,
    context: str,
    seed: int,
    top_k: int,
    longest: int,
    align: bool,
    null: bool,
    scoring: str,
) -> None:
    assume(context)
    answerer = answerer_of(kind)
    parameters = Parameters(
        top_k=top_k,
        max_answer_len=longest,
        max_seq_len=40,
        doc_stride=8,
        align_to_words=align,
        handle_impossible_answer=null,
        scoring=scoring,  # type: ignore[arg-type] # one of the two
    )
    prepared = answerer.prepare("Which?", context, parameters)
    answers = answerer.decode(prepared, random_logits(prepared, seed))
    assert 1 <= len(answers) <= top_k
    assert len({answer.answer.lower() for answer in answers}) == len(answers)
    assert sum(answer.answer == "" for answer in answers) <= 1
    scores = [answer.score for answer in answers]
    assert scores == sorted(scores, reverse=True)
    if scoring == "global":
        assert all(0 <= score <= 1 for score in scores)
        assert sum(scores) <= 1 + 1e-5
    for answer in answers:
        if answer.answer:
            check_ends(context, answer)
            if align and scoring == "global":
                check_words(context, answer)
        else:
            assert (answer.start, answer.end) == (0, 0)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_every_span(kind: str, align: bool) -> None:
    answerer = answerer_of(kind)
    parameters = Parameters(max_answer_len=3, max_seq_len=512, align_to_words=align)
    seen = set()
    for _, answer in every_span(answerer, TOWNS, parameters):
        if answer.answer:
            check_ends(TOWNS, answer)
            if align:
                check_words(TOWNS, answer)
            seen.add(answer.answer)
    if align:  # words are complete, including combining accents
        assert {"Rene\u0301", "Malmo\u0308", "Orm", "\u00c5re", "towns"} <= {
            text.strip(".,") for text in seen
        }


@pytest.mark.parametrize("kind", KINDS)
@given(context=TEXTS, seed=st.integers(0, 1000), top_k=st.integers(1, 6))
@settings(max_examples=40)
def test_merging_sums_the_scores_of_equal_texts(kind: str, context: str, seed: int, top_k: int) -> None:
    """Compared with a naive implementation: decode all spans, sum the scores of equal texts, sort."""
    assume(context)
    answerer = answerer_of(kind)
    prepared = answerer.prepare("Which?", context, Parameters(top_k=top_k, max_seq_len=512))
    assume(len(prepared.windows) == 1)
    logits = random_logits(prepared, seed)
    ((inside,), _) = normalise(prepared.windows, logits, per_window=False)
    sums: dict[str, float] = {}
    for span in top_spans(inside, prepared.parameters.max_answer_len, 2 * top_k + 10):
        place = whole_words(prepared, prepared.windows[0], span)
        if place is not None:
            text = context[slice(*place)].lower()
            sums[text] = sums.get(text, 0.0) + span.score
    expected = sorted(sums.items(), key=lambda item: item[1], reverse=True)[:top_k]
    found = [(a.answer.lower(), a.score) for a in answerer.decode(prepared, logits) if a.answer]
    if len(expected) == top_k:
        assert [text for text, _ in found] == [text for text, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected])
    else:  # the search goes on, and texts found later may have a higher sum
        assert len(found) >= len(expected)
        scores = dict(found)
        assert all(scores[text] == pytest.approx(score) for text, score in expected if text in scores)


def letter_by_letter(text: str) -> QuestionAnswerer:
    """An answerer with a SentencePiece-like tokenizer whose tokens are the letters of `text`."""
    letters = [(letter, -1.0) for letter in dict.fromkeys("\u2581Which?" + text) if letter != " "]
    backend = Tokenizer(models.Unigram([(token, 0.0) for token in BERT.values()] + letters, 1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return answerer_with(add_template(backend, BERT, type_ids=True), BERT["cls_token"])


@pytest.mark.parametrize("text", [JAPANESE, THAI])
@pytest.mark.parametrize("longest", [1, 4, 15])
def test_scripts_without_spaces_respect_max_answer_len(text: str, longest: int) -> None:
    answerer = letter_by_letter(text)
    parameters = Parameters(max_answer_len=longest, max_seq_len=512)
    found = every_span(answerer, text, parameters)
    for prepared, answer in found:
        touched = (prepared.tokens.offsets[:, 0] < answer.end) & (
            prepared.tokens.offsets[:, 1] > answer.start
        )
        clusters = len(regex.findall(r"\X", answer.answer))
        assert min(int(touched.sum()), clusters) <= longest
        check_ends(text, answer)
    assert len({answer.answer for _, answer in found}) > len(text) / 2


def test_katakana_and_foreign_words_stay_whole_in_japanese() -> None:
    text = JAPANESE + "HTML" + JAPANESE
    answerer = letter_by_letter(text)
    prepared = answerer.prepare("Which?", text, Parameters(max_answer_len=4))
    camera, html = (
        text.index("\u30ab") + 2,
        text.index("HTML") + 2,
    )  # the token of the second letter; the first token is the metaspace
    for at, word in ((camera, "\u30ab\u30e1\u30e9"), (html, "HTML")):
        (answer,) = answerer.decode(prepared, logits_for(prepared, at, at))
        assert answer.answer == word
    short = replace(prepared, parameters=Parameters(max_answer_len=2))
    (answer,) = answerer.decode(short, logits_for(prepared, camera, camera))
    assert answer.answer == "\u30e1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_split_by_a_window_is_completed(kind: str) -> None:
    answerer = answerer_of(kind)
    context = "unbelievable " * 8
    prepared, at = next(
        (prepared, i)
        for size in range(25, 40)
        for prepared in [answerer.prepare("Which?", context, Parameters(max_seq_len=size, doc_stride=0))]
        for i, window in enumerate(prepared.windows)
        if window.first and prepared.tokens.words[window.first - 1] == prepared.tokens.words[window.first]
    )
    logits = [WindowLogits(*np.full((2, len(w.ids)), -9, dtype=np.float32)) for w in prepared.windows]
    first = prepared.windows[at].context_at
    logits[at].start[first] = logits[at].end[first] = 9
    (answer,) = answerer.decode(prepared, logits)
    assert answer.answer == "unbelievable"
    upstream = replace(prepared, parameters=replace(prepared.parameters, scoring="per_window"))
    (answer,) = answerer.decode(upstream, logits)
    assert answer.answer != "unbelievable"
    assert "unbelievable".endswith(answer.answer)
