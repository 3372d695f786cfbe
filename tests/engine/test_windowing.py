"""Windows equal to those of the Hugging Face tokenizers, and batches within the token budget."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.windowing import Window, batch_windows, plan_windows
from service.errors import InvalidInput
from tests.answerers import answerer_of
from tests.texts import TEXTS
from tests.tokenizer_kinds import KINDS, tokenizer_of

TINY = Path(__file__).resolve().parents[1] / "models/tiny-fp32"
TEXT = "The river Assa rises in the hills of Orm and reaches the lake after ninety kilometres. " * 12


@pytest.fixture(scope="module")
def answerer() -> QuestionAnswerer:
    return QuestionAnswerer(load_artifact(TINY))


@given(st.integers(0, 500), st.integers(1, 100), st.integers(0, 150))
def test_windows_cover_everything_and_fit(tokens: int, room: int, overlap: int) -> None:
    spans = plan_windows(tokens, room, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == tokens
    assert all(0 <= last - first <= room for first, last in spans)
    for (first, last), (next_first, _) in itertools.pairwise(spans):
        assert first < next_first <= last
        assert last - next_first == (overlap if overlap < room else room // 2)


def test_an_empty_context_is_one_empty_window() -> None:
    assert plan_windows(0, 10, 3) == [(0, 0)]


@pytest.mark.parametrize(("max_seq_len", "doc_stride"), [(384, 128), (64, 16), (40, 20), (100, 0)])
def test_windows_are_those_of_the_tokenizer(
    answerer: QuestionAnswerer, max_seq_len: int, doc_stride: int
) -> None:
    question = "Where does the river rise?"
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.enable_truncation(max_seq_len, stride=doc_stride, strategy="only_second")
    encoded = tokenizer.encode(question, TEXT)
    expected = [encoded, *encoded.overflowing]
    parameters = Parameters(max_seq_len=max_seq_len, doc_stride=doc_stride)
    prepared = answerer.prepare(question, TEXT, parameters)
    assert [window.ids.tolist() for window in prepared.windows] == [e.ids for e in expected]
    assert [window.types.tolist() for window in prepared.windows] == [e.type_ids for e in expected]
    for window in prepared.windows:
        assert window.cls_at == 0
        piece = window.ids[window.context_at : window.context_at + window.last - window.first]
        assert np.array_equal(piece, prepared.tokens.ids[window.first : window.last])


def test_a_long_question_is_truncated(answerer: QuestionAnswerer) -> None:
    prepared = answerer.prepare("why " * 500, "Because.", Parameters(max_question_len=20))
    assert len(prepared.windows) == 1
    assert prepared.token_count == 3 + 20 + len(prepared.tokens.ids)


def test_no_room_for_the_context_is_rejected(answerer: QuestionAnswerer) -> None:
    with pytest.raises(InvalidInput, match="no room") as caught:
        answerer.prepare("why " * 50, "Because.", Parameters(max_seq_len=30))
    assert caught.value.field == "parameters.max_seq_len"


def test_a_long_question_is_not_truncated_by_default(answerer: QuestionAnswerer) -> None:
    question = "why " * 200 + "Orm"
    prepared = answerer.prepare(question, TEXT, Parameters(max_seq_len=512, doc_stride=64))
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.enable_truncation(512, stride=64, strategy="only_second")
    encoded = tokenizer.encode(question, TEXT)
    assert len(encoded.overflowing) > 0
    assert [window.ids.tolist() for window in prepared.windows] == [
        e.ids for e in (encoded, *encoded.overflowing)
    ]


def test_a_question_too_long_for_the_model_is_rejected(answerer: QuestionAnswerer) -> None:
    for max_seq_len in (64, 512):
        with pytest.raises(InvalidInput, match="no room") as caught:
            answerer.prepare("why " * 600, "Because.", Parameters(max_seq_len=max_seq_len))
        assert caught.value.field == "question"


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, TEXTS, st.integers(20, 60), st.integers(0, 16))
def test_windows_are_those_of_every_tokenizer(
    kind: str, question: str, text: str, max_seq_len: int, overlap: int
) -> None:
    answerer = answerer_of(kind)
    tokenizer = tokenizer_of(kind)
    room = max_seq_len - len(tokenizer.encode(question, "").ids)
    assume(question and text and room > overlap)
    tokenizer.enable_truncation(max_seq_len, stride=overlap, strategy="only_second")
    encoded = tokenizer.encode(question, text)
    prepared = answerer.prepare(question, text, Parameters(max_seq_len=max_seq_len, doc_stride=overlap))
    expected = [encoded, *encoded.overflowing]
    assert [window.ids.tolist() for window in prepared.windows] == [e.ids for e in expected]
    assert [window.types.tolist() for window in prepared.windows] == [e.type_ids for e in expected]


def test_the_number_of_windows_is_limited(answerer: QuestionAnswerer) -> None:
    parameters = Parameters(max_seq_len=512, doc_stride=505)
    with pytest.raises(InvalidInput, match="windows, and at most") as caught:
        answerer.prepare("Where?", TEXT * 30, parameters)
    assert caught.value.field == "context"


def test_short_windows_use_the_overlap_of_upstream() -> None:
    assert Parameters().overlap(384) == 128
    assert Parameters().overlap(100) == 50
    assert Parameters(doc_stride=7).overlap(100) == 7


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 200))
def test_batches_partition_the_windows_within_the_budget(lengths: list[int], budget: int) -> None:
    windows = [Window(np.arange(1, n + 1), np.zeros(n, dtype=np.int64), 0, 0, 0, n) for n in lengths]
    seen: list[int] = []
    for batch in batch_windows(windows, budget, pad_id=0):
        assert batch.ids.size <= budget or len(batch.order) == 1
        for row, index in enumerate(batch.order):
            assert batch.mask[row].sum() == lengths[index]
            assert batch.ids[row, : lengths[index]].tolist() == windows[index].ids.tolist()
            assert not batch.ids[row, lengths[index] :].any()
        seen += batch.order
    assert sorted(seen) == list(range(len(lengths)))
