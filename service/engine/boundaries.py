"""Owns where a text may be cut: grapheme clusters, white space, words' letters; knows no tokens.

Grapheme clusters and word letters are those of UAX #29 (Unicode text segmentation).
"""

from functools import lru_cache
from typing import Literal

import regex

# Between two code points of these classes there is always a boundary of clusters (GB4, GB5, GB999), so that
# nothing before the second needs to be read.
_PLAIN_PAIR = regex.compile(r"(?r)[\p{GCB=Other}\p{GCB=Control}]{2}")
_CLUSTER = regex.compile(r"\X")
_FIRST_NOT_PLAIN = "\u0300"  # all code points before it are plain, but for CR and LF
_FLAG_LETTERS = regex.compile(r"(?r)\p{RI}*")  # each two make a flag, counted from the first
# Code points before and behind a place in which the ends of its cluster are looked for: no script has
# clusters as long, and a text of nothing but marks takes no time.
_BEFORE, _BEHIND = 256, 1000
_VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Cf}]")

# Word letters with the marks on them (WB4, WB5), and as many of them as are one word at most: WordPiece, too,
# takes nothing longer for a word.
_LETTER, _MARKS = r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}]", r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_LETTERS_BEFORE = regex.compile(rf"(?r)(?:{_LETTER}{_MARKS})+")
_LETTERS_BEHIND = regex.compile(rf"{_MARKS}(?:{_LETTER}{_MARKS})+")
_LONGEST_WORD = 100

# Letters that Unicode's rules leave out of words, since their scripts put no spaces between words (Han,
# Hiragana, Thai, Lao, Khmer, Myanmar), and the punctuation of East Asia.
_UNSPACED = regex.compile(
    r"[[\p{L}--[\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Katakana}]]"
    r"[[\p{P}\p{S}]&&[\u3000-\u303f\uff00-\uff65]]]",
    regex.V1,
)
_KATAKANA = regex.compile(r"\p{WB=Katakana}")
_FIRST_UNSPACED = "\u0e00"


def trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """`text[start:end]` as whole grapheme clusters, without white space at its ends; None where it is blank.

    A cluster that was cut is taken whole, but a mark on white space goes with the white space.
    """
    start = _first_cluster(text, start, end)
    end = _last_cluster(text, start, end)
    return (start, end) if _VISIBLE.search(text, start, end) else None


def complete_words(text: str, start: int, end: int) -> tuple[int, int]:
    """`text[start:end]`, whole clusters, with the rest of the words that its ends cut.

    Words are letters with their marks; scripts without spaces have none.
    """
    if start and _may_join(text[start - 1]) and _LETTERS_BEHIND.match(text, start, end):
        before = _LETTERS_BEFORE.match(text, max(0, start - _LONGEST_WORD), start)
        start = before.start() if before else start
    if end < len(text) and _may_join(text[end]) and _LETTERS_BEFORE.match(text, start, end):
        behind = _LETTERS_BEHIND.match(text, end, end + _LONGEST_WORD)
        end = behind.end() if behind else end
    return start, end


def _may_join(char: str) -> bool:
    """Whether a character may belong to a word that continues; False decides most cases without a search.

    In ASCII only letters may; beyond it marks and format characters (the soft hyphen) are parts of words too.
    """
    return char.isalpha() or not char.isascii()


def same_word(text: str, at: int, *, katakana: bool) -> bool:
    """Whether the code points around `at` may belong to one word, in a script that puts spaces between words.

    Katakana, which has none, writes names and loan words in runs: `katakana` takes a run for a word.
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
    """The cluster that `at` lies inside of; (at, at) where a cluster ends there."""
    if not 0 < at < len(text) or (text[at - 1] < _FIRST_NOT_PLAIN and text[at] < _FIRST_NOT_PLAIN):
        return at, at
    low = max(0, at - _BEFORE)
    pair = _PLAIN_PAIR.search(text, low, at + 1)
    first = low - len(_FLAG_LETTERS.match(text, 0, low).group()) % 2 if pair is None else pair.start() + 1
    for cluster in _CLUSTER.finditer(text[first : at + _BEHIND]):
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
