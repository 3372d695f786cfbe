"""The compiled pieces and spans against Python's, NumPy's and the tokenizers library's."""

import ctypes
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer

from service.engine import native
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.engine.probes import probes
from service.engine.spans import TokenSpan, best_spans, count_spans, normalise, top_spans
from service.engine.tokenization import TextTokenizer
from service.engine.windowing import Window, WindowLogits
from service.engine.wordpiece import Pieces, PlainWordPiece
from service.errors import InvalidInput
from service.settings import DEFAULT_MODEL

pytestmark = pytest.mark.skipif(native.text() is None, reason="native/text.c is not compiled")

TINY = Path(__file__).resolve().parents[1] / "models/tiny-int8"


def both(full: Tokenizer) -> tuple[PlainWordPiece, PlainWordPiece]:
    """The compiled way and Python's."""
    compiled = PlainWordPiece.of(full)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "text", lambda: None)
        plain = PlainWordPiece.of(full)
    assert compiled is not None
    assert plain is not None
    assert type(compiled.cut.__self__) is not type(plain.cut.__self__)  # type: ignore[attr-defined]
    return compiled, plain


def cased(full: Tokenizer) -> Tokenizer:
    other = Tokenizer.from_str(full.to_str())
    other.normalizer = BertNormalizer(lowercase=False)
    return other


LARGE = Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))
SMALL = Tokenizer.from_file(str(TINY / "tokenizer.json"))  # splits nearly every word
TOKENIZERS = [(full, *both(full)) for full in (LARGE, SMALL, cased(LARGE))] if native.text() else []


def columns(pieces: Pieces | None) -> list[list[int]] | None:
    return None if pieces is None else pieces.T.tolist()


def check(text: str, taken: bool | None = None) -> None:
    """The library gives what both ways give; `taken`: whether they must, or must not."""
    for full, compiled, plain in TOKENIZERS:
        found = columns(compiled.encode(text))
        assert found == columns(plain.encode(text))
        assert taken is None or (found is not None) == taken
        if found is not None:
            whole = full.encode(text, add_special_tokens=False)
            assert found == [
                [piece, *place, word]
                for piece, place, word in zip(whole.ids, whole.offsets, whole.word_ids, strict=True)
            ]


WORDS = " ".join(context for _, context in probes()).split()
LETTERS = ["unbelievably", "Xylo7phone", "qzqzqz", "USA", "a" * 100, "b" * 101, "Z" * 99 + "q"]
MARKS = ["don't", "e-mail@x.org", "$3.5m", "##ing", "[UNK", "x" * 300 + "!"]
SCRIPTS = ["\u00e9t\u00e9,", "\u4e2d\u56fd", "(\u03a3\u03a3)", "\u0130b", "\u212a", "\u212ab-c"]
SIGNS = ["x\u0301y", "\u0301", "\u200b", "a\u00a0b", "\u2014", "\U0001f600", "\U0001f469\u200d\U0001f52c"]
ODD = [*LETTERS, *MARKS, *SCRIPTS, *SIGNS]
GAPS = [" ", "  ", "\t", "\n", "\r\n", "", ", ", "-", "."]
REFUSED = ["[SEP]", "[MASK]", "\x00", "\x0b", "\x1f", "\x7f"]
VALID = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PART = (
    st.sampled_from(WORDS)
    | st.sampled_from(ODD)
    | VALID
    | st.text(st.characters(max_codepoint=127), max_size=6)
)


@given(st.lists(st.tuples(PART, st.sampled_from(GAPS)), max_size=30))
@example([])
def test_pieces_are_the_librarys(parts: list[tuple[str, str]]) -> None:
    check("".join(part + gap for part, gap in parts))


@given(st.lists(st.sampled_from(WORDS), min_size=40, max_size=60), st.lists(PART, max_size=3), st.randoms())
def test_a_few_odd_words_among_plain_ones(words: list[str], odd: list[str], random: Random) -> None:
    for word in odd:
        words.insert(random.randint(0, len(words)), word)
    check(" ".join(words))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 1, 20, 40])
def test_an_odd_word_at_any_place_is_taken(odd: str, place: int) -> None:
    words = WORDS[:40]
    check(" ".join([*words[:place], odd, *words[place:]]), taken=True)
    check("\n" + "\t".join([*words[:place], odd + ",", *words[place:]]) + "\r\n ", taken=True)


@pytest.mark.parametrize("refused", REFUSED)
def test_what_the_library_must_do_is_left_to_it(refused: str) -> None:
    check(" ".join([*WORDS[:40], refused, *WORDS[:40]]), taken=False)
    check(refused + " at the front", taken=False)
    check("at the end " + refused, taken=False)


@pytest.mark.parametrize(("words", "taken"), [(9, False), (10, True), (19, False), (20, True)])
def test_the_share_beyond_ascii(words: int, taken: bool) -> None:
    foreign = 1 if words < 12 else 2
    check(
        " ".join(["\u00e9t\u00e9"] * foreign + WORDS[: words - foreign]).replace(".", "").replace(",", ""),
        taken,
    )


@pytest.mark.parametrize("text", ["", " ", "\r\n\t", "a", "!", "A", "-a", "a-"])
def test_next_to_nothing(text: str) -> None:
    check(text, taken=True)


def test_long_texts() -> None:
    check(" ".join(WORDS * 8), taken=True)
    check(" ".join([*WORDS * 2, "\U0001f600", *WORDS * 2, "\u0301", *WORDS * 2]), taken=True)


def test_the_longest_word_is_the_tokenizers() -> None:
    short = Tokenizer.from_str(LARGE.to_str())
    short.model = WordPiece(LARGE.get_vocab(False), unk_token="[UNK]", max_input_chars_per_word=4)
    compiled, plain = both(short)
    text = "that these The, lighthouse is abcd abcde"
    found = columns(compiled.encode(text))
    assert found is not None
    assert found == columns(plain.encode(text))
    assert [column[0] for column in found] == short.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["\ud83d", "half \udc00 pair", "all " * 50 + "\ud83d"])
def test_half_of_a_pair_is_refused_both_ways(text: str) -> None:
    with pytest.raises(InvalidInput):
        TextTokenizer(load_artifact(TINY)).tokenize(text, "context")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "text", lambda: None)
        without = TextTokenizer(load_artifact(TINY))
    with pytest.raises(InvalidInput):
        without.tokenize(text, "context")


def test_a_vocabulary_is_freed_with_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.text()
    assert library is not None
    freed: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return freed.append if name == "qa_forget" else getattr(library, name)

    monkeypatch.setattr(native, "text", Counting)
    plain = PlainWordPiece.of(SMALL)
    assert plain is not None
    assert not freed
    del plain
    assert len(freed) == 1
    library.qa_forget(ctypes.c_void_p(freed[0]))


def window(tokens: int, cls: bool = True) -> Window:
    """CLS, a question token, SEP, `tokens` context tokens, SEP."""
    ids = np.arange(tokens + 4)
    return Window(ids, np.zeros_like(ids), 3, 0 if cls else None, 0, tokens)


def check_spans(one: Window, logits: WindowLogits, longest: int, count: int) -> list[TokenSpan]:
    """The compiled search finds what NumPy finds, but for the order of equal scores."""
    (found,), null = best_spans([one], [logits], longest, count, per_window=False)
    (chances,), expected_null = normalise([one], [logits], per_window=False)
    expected = list(top_spans(chances, longest, count))
    assert null == pytest.approx(expected_null, abs=1e-6)
    assert len(found) == len(expected)
    scores = np.array([span.score for span in found])
    assert np.abs(scores - [span.score for span in expected]).max(initial=0) < 1e-6
    assert (np.diff(scores) <= 0).all()
    assert len({(span.first, span.last) for span in found}) == len(found)
    for span in found:
        assert 0 <= span.first <= span.last < min(span.first + longest, one.last)
        own = float(chances.start[span.first] * chances.end[span.last])
        assert abs(span.score - own) < 1e-6
    return found


# Halves make ties, wide ranges make chances that vanish.
LOGIT = st.integers(-8, 8).map(lambda n: n / 2) | st.floats(-200, 200, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Window, WindowLogits]:
    one = window(draw(st.integers(0, 14)), draw(st.booleans()))
    rows = st.lists(LOGIT, min_size=len(one.ids), max_size=len(one.ids))
    return one, WindowLogits(*(np.array(draw(rows), dtype=np.float32) for _ in range(2)))


@given(cases(), st.integers(1, 20), st.integers(1, 130))
def test_spans_are_numpys(case: tuple[Window, WindowLogits], longest: int, count: int) -> None:
    check_spans(*case, longest, count)


@pytest.mark.parametrize("tokens", [1, 2, 15, 150, 505])
@pytest.mark.parametrize(("longest", "count"), [(1, 1), (15, 12), (15, 210), (1000, 12), (2**40, 2**40)])
@pytest.mark.parametrize("cls", [True, False])
def test_spans_of_windows_as_they_are(tokens: int, longest: int, count: int, cls: bool) -> None:
    random = np.random.default_rng(tokens)
    for scale in (0.1, 4.0):
        rows = random.normal(0, scale, (2, tokens + 4)).astype(np.float32)
        found = check_spans(window(tokens, cls), WindowLogits(*rows), longest, count)
        assert len(found) == min(count, count_spans(tokens, longest))


def test_equal_scores_come_in_the_texts_order() -> None:
    even = WindowLogits(*np.zeros((2, 10), dtype=np.float32))
    found = check_spans(window(6), even, 3, 7)
    assert [(s.first, s.last) for s in found] == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (2, 2)]
    rising = WindowLogits(np.zeros(10, dtype=np.float32), np.repeat(np.array([1, 2], dtype=np.float32), 5))
    found = check_spans(window(6), rising, 3, 4)
    assert [(s.first, s.last) for s in found] == [(0, 2), (1, 2), (1, 3), (2, 2)]


@pytest.mark.parametrize("tokens", [0, 3])
def test_logits_without_any_chance(tokens: int) -> None:
    nothing = WindowLogits(*np.full((2, tokens + 4), -np.inf, dtype=np.float32))
    found = check_spans(window(tokens), nothing, 15, 12)
    assert [span.score for span in found] == [0.0] * count_spans(tokens, 15)


def test_logits_that_are_no_numbers_do_no_harm() -> None:
    broken = WindowLogits(*np.full((2, 34), np.nan, dtype=np.float32))
    (found,), _ = best_spans([window(30)], [broken], 15, 12, per_window=False)
    assert len(found) == 12
    assert all(0 <= span.first <= span.last < 30 for span in found)


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(),
        Parameters(top_k=50, handle_impossible_answer=True),
        Parameters(top_k=5, align_to_words=False, max_answer_len=40, scoring="per_window"),
        Parameters(top_k=3, max_seq_len=64, doc_stride=16),
    ],
)
def test_answers_are_the_same_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, parameters: Parameters
) -> None:
    compiled = QuestionAnswerer(load_artifact(DEFAULT_MODEL))
    prepared = [compiled.prepare(*item, parameters) for item in probes()]
    logits = [compiled.infer(one.windows) for one in prepared]
    found = [compiled.decode(*each) for each in zip(prepared, logits, strict=True)]
    monkeypatch.setattr(native, "text", lambda: None)
    without = QuestionAnswerer(load_artifact(DEFAULT_MODEL))
    for item, given_logits, answers in zip(probes(), logits, found, strict=True):
        expected = without.decode(without.prepare(*item, parameters), given_logits)
        assert [(a.answer, a.start, a.end) for a in answers] == [(a.answer, a.start, a.end) for a in expected]
        assert [a.score for a in answers] == pytest.approx([a.score for a in expected], abs=1e-6)
        assert all(type(a.start) is int and type(a.end) is int for a in answers)  # plain, for JSON
