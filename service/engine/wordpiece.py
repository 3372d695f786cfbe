"""Owns BERT's WordPiece of plain text, faster than the library; knows no model and no window."""

import re
from dataclasses import dataclass
from itertools import repeat

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

Offsets = list[tuple[int, int]]
Pieces = tuple[list[int], Offsets, list[int]]

# What BertNormalizer removes of ASCII (clean_text); tab and line ends are white space to it.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WORD = r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]"  # BertPreTokenizer: each punctuation mark is a word
_ASCII = re.compile(_WORD)
# Between white space: what has a character beyond ASCII in it stays whole, for the library.
_MIXED = re.compile(rf"[!-~]*+[^\x00-\x7f][^ \t\n\r]*|{_WORD}")
# From this share of words beyond ASCII on, the library is faster on the whole text.
_FOREIGN_SHARE = 0.1
_MISSING = -1  # no id


@dataclass(frozen=True, slots=True)
class PlainWordPiece:
    """A BERT tokenizer for texts that are ASCII but for a few words.

    In ASCII its normalizer only changes the case, so every place stays where it is, and most words
    are in the vocabulary as a whole: one look in a table each. The library is asked for the words
    with other characters, one by one; white space between keeps them from one another.
    """

    full: Tokenizer
    lower: bool
    added: tuple[str, ...]  # tokens found in the text as written, before any normalizer
    unknown: int
    longest: int  # characters; longer words are unknown
    fronts: dict[str, int]  # ids of ASCII pieces that begin a word
    rests: dict[str, int]  # of those that go on with one, without their prefix

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
        prefix = model.continuing_subword_prefix
        vocabulary = full.get_vocab(with_added_tokens=False)
        if model.unk_token not in vocabulary:
            return None
        longest = model.max_input_chars_per_word
        ascii_only = {
            piece: number
            for piece, number in vocabulary.items()
            if piece.isascii() and len(piece) <= longest + len(prefix)
        }
        return cls(
            full,
            normalizer.lowercase,
            tuple(token.content for token in added),
            vocabulary[model.unk_token],
            longest,
            {piece: n for piece, n in ascii_only.items() if len(piece) <= longest},
            {piece[len(prefix) :]: n for piece, n in ascii_only.items() if piece.startswith(prefix)},
        )

    def encode(self, text: str) -> Pieces | None:
        """Ids, places and words' numbers, as the full tokenizer gives them; None where it must."""
        if _CONTROL.search(text) or any(token in text for token in self.added):
            return None
        plain = text.isascii()
        offsets = [match.span() for match in (_ASCII if plain else _MIXED).finditer(text)]
        cased = text.lower() if plain and self.lower else text
        pieces = [cased[start:end] for start, end in offsets]
        if self.lower and not plain:
            pieces = [piece.lower() for piece in pieces]  # the whole text might change its length
        known = [*map(self.fronts.get, pieces, repeat(_MISSING))]
        words = [*range(len(pieces))]
        missing = [n for n, found in enumerate(known) if found == _MISSING] if _MISSING in known else []
        if not plain and sum(not pieces[n].isascii() for n in missing) > _FOREIGN_SHARE * len(pieces):
            return None
        for number in reversed(missing):  # from the end: the numbers before stay what they are
            start, end = offsets[number]
            if pieces[number].isascii():
                ids, places = self._split(pieces[number])
                inside, count = [0] * len(ids), 1
            else:
                encoding = self.full.encode(text[start:end], add_special_tokens=False)
                ids, places, inside = encoding.ids, encoding.offsets, encoding.word_ids
                count = inside[-1] + 1 if inside else 0  # words; it may have held nothing but marks
            known[number : number + 1] = ids
            offsets[number : number + 1] = [(start + first, start + last) for first, last in places]
            if count != 1:
                words[number + 1 :] = [word + count - 1 for word in words[number + 1 :]]
            words[number : number + 1] = [number + word for word in inside]
        return known, offsets, words

    def _split(self, word: str) -> tuple[list[int], Offsets]:
        """The longest piece from the left, again and again (Wu et al. 2016); else the whole is unknown."""
        ids: list[int] = []
        places: Offsets = []
        table, first = self.fronts, 0
        while first < len(word) <= self.longest:
            last = len(word)
            while (found := table.get(word[first:last])) is None and last > first:
                last -= 1
            if found is None:
                break
            ids.append(found)
            places.append((first, last))
            table, first = self.rests, last
        else:
            if ids:
                return ids, places
        return [self.unknown], [(0, len(word))]
