"""Owns the way from a text to token ids with their places in it; knows no windows and no model."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from tokenizers.processors import Sequence

from service.engine.artifact import Artifact
from service.errors import ArtifactError, DeadlineExceeded, InvalidInput

Ids = npt.NDArray[np.int64]
NO_WORD = -1
# Longer texts, in code points, are tokenized one at a time in a thread of their own: by then the work
# takes several milliseconds, through which encode would hold the GIL.
_LONG = 8192
_SLICE = 8192  # tokens whose offsets are read at once: the GIL is held for a millisecond
_TOO_LATE = "The time allowed for this request passed before it was answered."


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """One text without special tokens.

    `offsets` are half-open ranges of Unicode code points in the text as sent (before any
    normalisation); `words` number the pre-tokenizer's words, NO_WORD where it knows none.
    """

    ids: Ids  # (tokens,)
    offsets: Ids  # (tokens, 2)
    words: Ids  # (tokens,)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """How the tokenizer frames two texts: prefix, first, middle, second, suffix.

    Derived once, so that windows are assembled from ids instead of asking the tokenizer for every
    window and keeping truncation state in it. `cls_index` counts from the window's front when
    not negative, else from its end (XLNet puts CLS last); None where there is no CLS.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    prefix_types: Ids
    middle_types: Ids
    suffix_types: Ids
    first_types: Ids  # as many as any window has tokens
    second_types: Ids
    cls_index: int | None

    @property
    def specials(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class TextTokenizer:
    """The artifact's tokenizer, loaded once and never changed, so any thread may use it."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError where tokenizer.json cannot be read or frames pairs strangely."""
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(artifact.tokenizer_path))
        except Exception as error:  # the Rust side raises bare Exception for anything it dislikes
            raise ArtifactError(
                f"{artifact.tokenizer_path} cannot be loaded as a tokenizer: {error}."
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        _keep_letters(self._tokenizer)
        self.template = _derive_template(self._tokenizer, artifact)
        self._long_texts = ThreadPoolExecutor(1, "long-text")

    def tokenize(self, text: str, field: str, deadline: float = math.inf) -> TokenizedText:
        """Tokenize one text; `field` names it in errors.

        Raises InvalidInput for a text that is not valid Unicode (JSON can carry half of a
        surrogate pair, UTF-8 cannot), and DeadlineExceeded as soon as time.monotonic passes
        `deadline`; a long text that is being tokenized by then is finished for nobody.
        """
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(_TOO_LATE)
        try:
            if len(text) <= _LONG:
                return _arrays(self._tokenizer.encode(text, add_special_tokens=False))
            waiting = self._long_texts.submit(self._tokenize_long, text)
            try:
                return waiting.result(None if deadline == math.inf else deadline - time.monotonic())
            except TimeoutError:
                waiting.cancel()
                raise DeadlineExceeded(_TOO_LATE) from None
        except (UnicodeEncodeError, TypeError):
            raise InvalidInput(
                f"The {field} is not valid Unicode text: it holds half of a surrogate pair.",
                field=field,
            ) from None

    def _tokenize_long(self, text: str) -> TokenizedText:
        # Unlike encode, encode_batch releases the GIL.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return _arrays(encoding)


def _keep_letters(tokenizer: Tokenizer) -> None:
    """Offsets of whole words, where the tokenizer's own would lose their first letters.

    Byte-level post-processors trim white space off the offsets by what they find in the token. Where
    the pre-tokenizer splits at white space first and then puts a space before every word (RobBERT),
    no white space is in the offsets, and they trim a letter.
    """
    pre_tokenizer, processor = tokenizer.pre_tokenizer, tokenizer.post_processor
    if pre_tokenizer is None or pre_tokenizer.pre_tokenize_str("a a")[-1:] != [("\u0120a", (2, 3))]:
        return
    for part in processor if isinstance(processor, Sequence) else [processor]:
        if getattr(part, "trim_offsets", False):
            part.trim_offsets = False


def _arrays(encoding: Encoding) -> TokenizedText:
    return TokenizedText(
        ids=np.array(encoding.ids, dtype=np.int64),
        offsets=_offsets(encoding),
        words=np.array([NO_WORD if word is None else word for word in encoding.word_ids], dtype=np.int64),
    )


def _offsets(encoding: Encoding) -> Ids:
    """(tokens, 2) code points."""
    tokens = len(encoding)
    if tokens <= _SLICE:
        return np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * tokens).reshape(-1, 2)
    offsets = np.empty((tokens, 2), dtype=np.int64)
    for first in range(0, tokens, _SLICE):  # between slices another thread may have the GIL
        part = range(first, min(first + _SLICE, tokens))
        places = chain.from_iterable(map(encoding.token_to_chars, part))
        offsets[first : part.stop] = np.fromiter(places, np.int64, 2 * len(part)).reshape(-1, 2)
    return offsets


def _derive_template(tokenizer: Tokenizer, artifact: Artifact) -> PairTemplate:
    """Read the framing off one encoded pair; HF post-processors do not describe themselves."""
    pair = tokenizer.encode("a", "b")
    sequences = np.array([-1 if s is None else s for s in pair.sequence_ids])
    ids, types = np.array(pair.ids, dtype=np.int64), np.array(pair.type_ids, dtype=np.int64)
    first, second = np.flatnonzero(sequences == 0), np.flatnonzero(sequences == 1)
    contiguous = all(len(s) > 0 and s[-1] - s[0] + 1 == len(s) for s in (first, second))
    if not contiguous or first[-1] > second[0]:
        raise ArtifactError(
            f"{artifact.tokenizer_path} does not frame two texts as one pair, "
            "so this tokenizer cannot be served: its post-processor has no pair template."
        )
    prefix = slice(0, int(first[0]))
    middle = slice(int(first[-1]) + 1, int(second[0]))
    suffix = slice(int(second[-1]) + 1, len(ids))
    cls_index: int | None = None
    if artifact.cls_id in ids[prefix]:
        cls_index = int(np.flatnonzero(ids[prefix] == artifact.cls_id)[0])
    elif artifact.cls_id in ids[suffix]:
        cls_index = int(np.flatnonzero(ids == artifact.cls_id)[-1]) - len(ids)
    return PairTemplate(
        prefix=ids[prefix],
        middle=ids[middle],
        suffix=ids[suffix],
        prefix_types=types[prefix],
        middle_types=types[middle],
        suffix_types=types[suffix],
        first_types=np.full(artifact.max_length, types[first[0]]),
        second_types=np.full(artifact.max_length, types[second[0]]),
        cls_index=cls_index,
    )
