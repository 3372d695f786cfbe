"""Answers begin and end at boundaries of grapheme clusters, without surrounding white space."""

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from service.engine.boundaries import complete_words, same_word, trim
from tests.texts import CLUSTERS, TEXTS


@pytest.mark.parametrize("around", ["", "x", " ", "\u6771", "\u0e01"])
@pytest.mark.parametrize("cluster", [c for c in CLUSTERS if len(regex.findall(r"\X", c)) == 1], ids=ascii)
def test_clusters_are_not_split(cluster: str, around: str) -> None:
    text = around + cluster + around
    whole = (len(around), len(around) + len(cluster))
    for start in range(*whole):
        for end in range(start + 1, whole[1] + 1):
            assert trim(text, start, end) == whole


@given(TEXTS, st.data())
@example("a \u0301b", None)  # a combining mark after a space
@example("\u0600 b", None)  # a prepended mark (Grapheme_Cluster_Break=Prepend)
def test_spans_are_extended_to_whole_clusters_and_stripped_of_white_space(
    text: str, data: st.DataObject | None
) -> None:
    places = [(i, j) for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    if data is not None and places:
        places = [data.draw(st.sampled_from(places))]
    clusters = [match.span() for match in regex.finditer(r"\X", text)]
    for start, end in places:
        touched = [(i, j) for i, j in clusters if i < end and start < j]
        solid = [(i, j) for i, j in touched if not text[i].isspace() and not text[j - 1].isspace()]
        found = trim(text, start, end)
        if found is None:
            assert not any(regex.search(r"[^\s\p{Cc}\p{Cf}]", text[i:j]) for i, j in solid)
            continue
        assert found[0] in [i for i, _ in touched]
        assert found[1] in [j for _, j in touched]
        assert all(found[0] <= i and j <= found[1] for i, j in solid)
        piece = text[slice(*found)]
        assert piece.strip() == piece != ""


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000", "\u00a0", "\x00", "\ufeff \u200b"])
def test_invisible_text_is_blank(blank: str) -> None:
    assert trim("a" + blank + "b", 1, 1 + len(blank)) is None


@pytest.mark.parametrize(
    "word",
    [
        "harbour",
        "re\u00adport",
        "Rene\u0301e",
        "\u05e9\u05dc\u05d5\u05dd",
        "ta\u02c5la",
        "\u0928\u093f\u092f\u092e",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("around", ["", " ", ".", "-", "1", "\u6771"])
def test_a_partial_word_is_completed(word: str, around: str) -> None:
    text = around + word + around
    whole = (len(around), len(around) + len(word))
    cuts = [len(around) + match.start() for match in regex.finditer(r"\X", word)] + [whole[1]]
    for i, start in enumerate(cuts):
        for end in cuts[i + 1 :]:
            if text[start:end] == "\u00ad":  # a soft hyphen is invisible: `trim` has removed it
                continue
            assert complete_words(text, start, end) == whole


def test_adjacent_words_are_not_added() -> None:
    text = "In (1912) the harbour-master's boat sank"
    for part in ("1912", "harbour", "master", "(1912) the"):
        place = (text.index(part), text.index(part) + len(part))
        assert complete_words(text, *place) == place


def test_regional_indicators_are_paired_from_the_first() -> None:
    text = "x" + "\U0001f1ef\U0001f1f5" * 300 + "\U0001f1eb"
    assert trim(text, 4, 5) == (3, 5)
    assert trim(text, 580, 581) == (579, 581)
    assert trim(text, 601, 602) == (601, 602)


def test_a_huge_cluster_is_processed_quickly() -> None:
    text = "e" + "\u0301" * 200_000 + "\U0001f1ef" * 200_000
    for at in range(1000, 400_000, 20_000):
        assert trim(text, at, at + 1) is not None


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("ab", True),
        ("\u00e9a", True),
        ("\u0434\u0430", True),
        ("\ud55c\uad6d", True),  # Korean puts spaces between words
        ("\u0915\u0916", True),
        ("\u6771\u4eac", False),
        ("a\u4eac", False),
        ("\u306e\u306f", False),
        ("\u0e20\u0e32", False),
        ("\u0e19\u0e49", False),
        ("\u3002a", False),
        ("\uff01a", False),
        ("\u30ab\u306f", False),
    ],
)
def test_letters_that_form_words(text: str, joined: bool) -> None:
    assert same_word(text, 1, katakana=True) == joined
    assert same_word(text, 0, katakana=True)
    assert same_word(text, 2, katakana=True)


def test_katakana_forms_words_if_enabled() -> None:
    assert same_word("\u30ab\u30fc", 1, katakana=True)
    assert not same_word("\u30ab\u30fc", 1, katakana=False)
