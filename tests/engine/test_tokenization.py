"""The short way for plain text gives what the whole tokenizer gives, and is taken only where it does."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import Whitespace

from service.engine.artifact import load_artifact
from service.engine.probes import probes
from service.engine.tokenization import TextTokenizer
from service.engine.wordpiece import PlainWordPiece

TINY = Path(__file__).resolve().parents[1] / "models/tiny-int8"
FULL = Tokenizer.from_file(str(TINY / "tokenizer.json"))
SERVED = TextTokenizer(load_artifact(TINY))
WORDS = probes()[0][1].split()[:40]
MARKS = ["[SEP]", "[MASK", "USA", "don't", "e-mail@x.org", "$3.5m", " ", "  ", "\t", "\n", "\r\n"]
CONTROLS = ["\x00", "\x0b", "\x1c", "\x7f"]
OTHERS = ["\u00e9", "\u4e2d", "\u0301", "\U0001f600"]
TEXTS = st.lists(
    st.sampled_from([*WORDS, *MARKS, *CONTROLS, *OTHERS]) | st.text(max_size=8), max_size=30
).map("".join)


@given(TEXTS)
@example("")
@example("[CLS] Ann [SEP]")
def test_the_same_tokens_at_the_same_places(text: str) -> None:
    try:
        whole = FULL.encode(text, add_special_tokens=False)
    except (UnicodeEncodeError, TypeError):  # half of a surrogate pair, refused elsewhere
        return
    found = SERVED.tokenize(text, "context")
    assert found.ids.tolist() == whole.ids
    assert found.offsets.tolist() == [list(place) for place in whole.offsets]
    assert found.words.tolist() == whole.word_ids


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("Ann wrote IT,\tin 1931.\n", True),
        ("Ann wrote \x07 it.", False),
        ("Ann [SEP] wrote it.", False),
        ("Zo\u00eb wrote all of it in the year of 1931, and sold it.", True),
        ("Zo\u00eb wrote it.", False),  # more than one word in ten: the library is faster
    ],
)
def test_which_texts_take_it(text: str, taken: bool) -> None:
    short = PlainWordPiece.of(FULL)
    assert short is not None
    assert (short.encode(text) is not None) == taken


@pytest.mark.parametrize(
    "foreign",
    [
        "Zo\u00eb,",
        "x\u0301y",
        "\u0301",
        "\u200b",
        "a\u00a0b",
        "\u4e2d\u56fd",
        "\u0130ab-c",
        "(\u03a3\u03a3)",
        "\u2014",
    ],
)
def test_a_word_beyond_ascii_among_others(foreign: str) -> None:
    text = " ".join([*WORDS[:20], foreign, *WORDS[20:], foreign, "unlikelyword", "w" * 101, "end."])
    short = PlainWordPiece.of(FULL)
    assert short is not None
    found = short.encode(text)
    whole = FULL.encode(text, add_special_tokens=False)
    assert found is not None
    assert found.T.tolist() == [
        [piece, *place, word]
        for piece, place, word in zip(whole.ids, whole.offsets, whole.word_ids, strict=True)
    ]


def test_case_is_kept_where_the_tokenizer_keeps_it() -> None:
    cased = Tokenizer.from_str(FULL.to_str())
    cased.normalizer = BertNormalizer(lowercase=False)
    short = PlainWordPiece.of(cased)
    assert short is not None
    for _, context in probes()[:5]:
        if (found := short.encode(context)) is not None:
            assert found[0].tolist() == cased.encode(context, add_special_tokens=False).ids


def test_other_tokenizers_have_no_short_way() -> None:
    other = Tokenizer.from_str(FULL.to_str())
    other.normalizer = Lowercase()
    assert PlainWordPiece.of(other) is None
    split = Tokenizer.from_str(FULL.to_str())
    split.pre_tokenizer = Whitespace()
    assert PlainWordPiece.of(split) is None
    added = Tokenizer.from_str(FULL.to_str())
    added.add_tokens([AddedToken("ann", normalized=True)])  # found in normalized text only
    assert PlainWordPiece.of(added) is None
