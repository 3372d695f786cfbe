"""Owns BERT's WordPiece of plain text, faster than the library; knows no model and no window."""

import ctypes
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from service.engine import native

# (4, tokens): ids, first code points, those after the last, words' numbers.
Pieces = npt.NDArray[np.int64]

# What BertNormalizer removes of ASCII (clean_text); tab and line ends are white space to it.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WORD = r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]"  # BertPreTokenizer: each punctuation mark is a word
_ASCII = re.compile(_WORD)
# Between white space: what has a character beyond ASCII in it stays whole, for the library.
_MIXED = re.compile(rf"[!-~]*+[^\x00-\x7f][^ \t\n\r]*|{_WORD}")
# From one word beyond ASCII in so many on, the library is faster on the whole text.
_WORDS_PER_FOREIGN = 10
_FOREIGN = -1  # no id
# Bytes of a text from which on others may have Python's lock meanwhile: some milliseconds' work.
_LONG = 1 << 16


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """What WordPiece needs to know about words that are ASCII."""

    lower: bool
    unknown: int
    longest: int  # characters; longer words are unknown
    fronts: dict[str, int]  # ids of pieces that begin a word
    rests: dict[str, int]  # of those that go on with one, without their prefix

    def cut(self, text: str) -> Pieces | None:
        """Pieces of the ASCII words, each other one whole with the id _FOREIGN; None as `encode`."""
        if _CONTROL.search(text):
            return None
        columns: list[tuple[int, int, int, int]] = []
        for number, match in enumerate((_ASCII if text.isascii() else _MIXED).finditer(text)):
            start, end = match.span()
            word = match.group()
            if not word.isascii():
                columns.append((_FOREIGN, start, end, number))
                continue
            if self.lower:
                word = word.lower()
            if (known := self.fronts.get(word)) is not None:
                columns.append((known, start, end, number))
            else:
                columns += [(n, start + first, start + last, number) for n, first, last in self._split(word)]
        return np.array(columns, dtype=np.int64).reshape(-1, 4).T

    def _split(self, word: str) -> list[tuple[int, int, int]]:
        """The longest piece from the left, again and again (Wu et al. 2016); else the whole is unknown."""
        pieces: list[tuple[int, int, int]] = []
        table, first = self.fronts, 0
        while first < len(word) <= self.longest:
            last = len(word)
            while (found := table.get(word[first:last])) is None and last > first:
                last -= 1
            if found is None:
                break
            pieces.append((found, first, last))
            table, first = self.rests, last
        return pieces if first == len(word) else [(self.unknown, 0, len(word))]


class _Compiled:
    """The same, by native/text.c."""

    def __init__(self, library: ctypes.CDLL, vocabulary: _Vocabulary) -> None:
        self._library = library
        pieces = [*vocabulary.fronts, *vocabulary.rests]
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
        ids = np.array([*vocabulary.fronts.values(), *vocabulary.rests.values()], dtype=np.int32)
        self._tables = library.qa_vocabulary(
            "".join(pieces).encode(),
            lengths.ctypes.data,
            ids.ctypes.data,
            len(vocabulary.fronts),
            len(vocabulary.rests),
            vocabulary.lower,
            vocabulary.longest,
            vocabulary.unknown,
        )
        if not self._tables:
            raise MemoryError
        weakref.finalize(self, library.qa_forget, self._tables).atexit = False

    def cut(self, text: str) -> Pieces | None:
        data = text.encode()
        rows = np.empty((4, len(data) + 1), dtype=np.int64)
        library = self._library if len(data) < _LONG else native.text(release=True)
        assert library is not None  # noqa: S101 - it is the same file
        tokens = library.qa_pieces(self._tables, data, len(data), native.address(rows.data))
        return None if tokens < 0 else rows[:, :tokens]


@dataclass(frozen=True, slots=True)
class PlainWordPiece:
    """A BERT tokenizer for texts that are ASCII but for a few words.

    In ASCII its normalizer only changes the case, so every place stays where it is, and most words
    are in the vocabulary as a whole: one look in a table each. The library is asked for the words
    with other characters, one by one; white space between keeps them from one another.
    """

    full: Tokenizer
    added: tuple[str, ...]  # tokens found in the text as written, before any normalizer
    cut: Callable[[str], Pieces | None]

    @classmethod
    def of(cls, full: Tokenizer) -> "PlainWordPiece | None":
        """None where `full` works in another way."""
        normalizer, model, added = full.normalizer, full.model, full.get_added_tokens_decoder().values()
        if (
            not isinstance(normalizer, BertNormalizer)
            or not isinstance(full.pre_tokenizer, BertPreTokenizer)
            or not isinstance(model, WordPiece)
            or any(token.normalized for token in added)
        ):
            return None
        prefix, longest = model.continuing_subword_prefix, model.max_input_chars_per_word
        pieces = full.get_vocab(with_added_tokens=False)
        if model.unk_token not in pieces:
            return None
        vocabulary = _Vocabulary(
            normalizer.lowercase,
            pieces[model.unk_token],
            longest,
            {
                piece: number
                for piece, number in pieces.items()
                if len(piece) <= longest and _ASCII.fullmatch(piece)
            },
            {
                rest: number
                for piece, number in pieces.items()
                if piece.startswith(prefix) and _ASCII.fullmatch(rest := piece[len(prefix) :])
            },
        )
        library = native.text()
        way = vocabulary if library is None else _Compiled(library, vocabulary)
        return cls(full, tuple(token.content for token in added), way.cut)

    def encode(self, text: str) -> Pieces | None:
        """What the full tokenizer gives; None where it must."""
        for token in self.added:  # not any(): texts are short, a generator is not
            if token in text:
                return None
        pieces = self.cut(text)
        return pieces if pieces is None or text.isascii() else self._with_foreign(text, pieces)

    def _with_foreign(self, text: str, pieces: Pieces) -> Pieces | None:
        """Ask the library for the words beyond ASCII; None where they are too many."""
        foreign = np.flatnonzero(pieces[0] == _FOREIGN).tolist()
        if len(foreign) * _WORDS_PER_FOREIGN > pieces[3, -1] + 1:
            return None
        parts, done, more = [], 0, 0  # more: words found than if each of these had been one
        for at in foreign:
            start, end, number = pieces[1:, at].tolist()
            encoding = self.full.encode(text[start:end], add_special_tokens=False)
            found = [
                (piece, start + first, start + last, number + more + word)
                for piece, (first, last), word in zip(
                    encoding.ids, encoding.offsets, encoding.word_ids, strict=True
                )
            ]
            pieces[3, done:at] += more
            parts += [pieces[:, done:at], np.array(found, dtype=np.int64).reshape(-1, 4).T]
            done = at + 1
            more += len(set(encoding.word_ids)) - 1  # it may have held nothing but marks
        pieces[3, done:] += more
        return np.concatenate((*parts, pieces[:, done:]), axis=1)
