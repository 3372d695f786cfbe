"""Owns text boundaries: grapheme clusters, white space, words; knows no tokens.

Grapheme clusters and word letters are those of UAX #29 (Unicode text segmentation).
"""

from functools import lru_cache
from typing import Literal

import regex

# Between two code points of these classes there is always a cluster boundary (GB4, GB5, GB999), so a search
# may begin at the second.
_PLAIN_PAIR = regex.compile(r"(?r)[\p{GCB=Other}\p{GCB=Control}]{2}")
_CLUSTER = regex.compile(r"\X")
_FIRST_NOT_PLAIN = "\u0300"  # all lower code points are plain, except CR and LF
_FLAG_LETTERS = regex.compile(r"(?r)\p{RI}*")  # pairs of them are flags, counted from the first
# Code points before and after a position that are searched for the ends of its cluster. No script has longer
# clusters, and the bound keeps texts of combining marks alone cheap.
_BEFORE, _AFTER = 256, 1000
_VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Cf}]")

# Word letters with their marks (WB4, WB5), and the maximum length of a word, which is also WordPiece's.
_LETTER, _MARKS = r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}]", r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_LETTERS_BEFORE = regex.compile(rf"(?r)(?:{_LETTER}{_MARKS})+")
_LETTERS_AFTER = regex.compile(rf"{_MARKS}(?:{_LETTER}{_MARKS})+")
_LONGEST_WORD = 100

# Letters of scripts without spaces between words, for which UAX #29 defines no words (Han, Hiragana, Thai,
# Lao, Khmer, Myanmar), and East Asian punctuation.
_UNSPACED = regex.compile(
    r"[[\p{L}--[\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Katakana}]]"
    r"[[\p{P}\p{S}]&&[\u3000-\u303f\uff00-\uff65]]]",
    regex.V1,
)
_KATAKANA = regex.compile(r"\p{WB=Katakana}")
_FIRST_UNSPACED = "\u0e00"


def trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """`text[start:end]` extended to whole grapheme clusters and stripped of white space; None if blank.

    A combining mark on white space is stripped with it.
    """
    start = _first_cluster(text, start, end)
    end = _last_cluster(text, start, end)
    return (start, end) if _VISIBLE.search(text, start, end) else None


def complete_words(text: str, start: int, end: int) -> tuple[int, int]:
    """`text[start:end]`, whole clusters, extended to whole words.

    Words are letters with their marks; scripts without spaces have none.
    """
    if start and _may_join(text[start - 1]) and _LETTERS_AFTER.match(text, start, end):
        before = _LETTERS_BEFORE.match(text, max(0, start - _LONGEST_WORD), start)
        start = before.start() if before else start
    if end < len(text) and _may_join(text[end]) and _LETTERS_BEFORE.match(text, start, end):
        after = _LETTERS_AFTER.match(text, end, end + _LONGEST_WORD)
        end = after.end() if after else end
    return start, end


def _may_join(char: str) -> bool:
    """Whether a character may be inside a word; a fast check before the search by regular expression.

    In ASCII only letters may; elsewhere marks and format characters (soft hyphen) may, too.
    """
    return char.isalpha() or not char.isascii()


def same_word(text: str, at: int, *, katakana: bool) -> bool:
    """Whether the code points around `at` may belong to one word, in a script with spaces between words.

    Katakana has no spaces, but its runs are names and loan words: with `katakana` a run is one word.
    """
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if before < _FIRST_UNSPACED and after < _FIRST_UNSPACED:
        return True
    kinds = _script(before), _script(after)
    return (
        kinds == ("katakana", "katakana")
        if katakana and "katakana" in kinds
        else kinds == ("spaced", "spaced")
    )


def _first_cluster(text: str, start: int, end: int) -> int:
    while start < end:
        if text[start].isspace():
            piece = text[start:end]
            start += len(piece) - len(piece.lstrip())
            continue
        first, after = _cluster_across(text, start)
        if not text[first].isspace():
            return first
        start = after
    return end


def _last_cluster(text: str, start: int, end: int) -> int:
    while start < end:
        if text[end - 1].isspace():
            end = start + len(text[start:end].rstrip())
            continue
        first, after = _cluster_across(text, end)
        if not text[after - 1].isspace():
            return after
        end = first
    return start


def _cluster_across(text: str, at: int) -> tuple[int, int]:
    """The cluster that contains `at` in its inside; (at, at) if `at` is a cluster boundary."""
    if not 0 < at < len(text) or (text[at - 1] < _FIRST_NOT_PLAIN and text[at] < _FIRST_NOT_PLAIN):
        return at, at
    low = max(0, at - _BEFORE)
    pair = _PLAIN_PAIR.search(text, low, at + 1)
    first = low - len(_FLAG_LETTERS.match(text, 0, low).group()) % 2 if pair is None else pair.start() + 1
    for cluster in _CLUSTER.finditer(text[first : at + _AFTER]):
        start, end = first + cluster.start(), first + cluster.end()
        if end > at > start:
            return start, end
        if end >= at:
            break
    return at, at


@lru_cache(maxsize=4096)
def _script(char: str) -> Literal["spaced", "katakana", "unspaced"]:
    if _KATAKANA.match(char):
        return "katakana"
    return "unspaced" if _UNSPACED.match(char) else "spaced"
