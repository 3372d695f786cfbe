"""Owns tokenization: text to token ids, offsets and word numbers; knows no windows and no model."""

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
# Longer texts, in code points, are tokenized one at a time in a dedicated thread, which releases the GIL:
# `encode` would hold it for several milliseconds.
_LONG = 8192
_SLICE = 8192  # tokens whose offsets are read while the GIL is held, about a millisecond
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
    """The special tokens around a pair of texts: prefix, first, middle, second, suffix.

    Derived once, so windows are assembled from ids; the tokenizer's own truncation is mutable state
    that threads would share. `cls_index` counts from the start of the window, or from its end if
    negative (XLNet puts CLS last); None without a CLS token.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    prefix_types: Ids
    middle_types: Ids
    suffix_types: Ids
    first_types: Ids  # (max_length,), sliced for each window
    second_types: Ids
    cls_index: int | None

    @property
    def specials(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class TextTokenizer:
    """The artifact's tokenizer; immutable after loading, so any thread may use it."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError if tokenizer.json cannot be read or has no template for a pair of texts."""
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(artifact.tokenizer_path))
        except Exception as error:  # tokenizers raises no more specific type
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

        Raises InvalidInput for a text that is not valid Unicode (JSON can contain an unpaired
        surrogate, UTF-8 cannot), and DeadlineExceeded as soon as time.monotonic passes `deadline`;
        a long text that is being tokenized then runs to its end, and the result is discarded.
        """
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(_TOO_LATE)
        try:
            if len(text) <= _LONG:
                return _arrays(self._tokenizer.encode(text, add_special_tokens=False))
            future = self._long_texts.submit(self._tokenize_long, text)
            try:
                return future.result(None if deadline == math.inf else deadline - time.monotonic())
            except TimeoutError:
                future.cancel()
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
    """Turn off `trim_offsets` where it would cut the first letter off every word.

    Byte-level post-processors shorten the offsets by the leading spaces of the token. Where the
    pre-tokenizer splits at white space and then adds a prefix space (RobBERT), the offsets contain no
    space, and a letter would be cut.
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
    for first in range(0, tokens, _SLICE):  # other threads may take the GIL between slices
        part = range(first, min(first + _SLICE, tokens))
        places = chain.from_iterable(map(encoding.token_to_chars, part))
        offsets[first : part.stop] = np.fromiter(places, np.int64, 2 * len(part)).reshape(-1, 2)
    return offsets


def _derive_template(tokenizer: Tokenizer, artifact: Artifact) -> PairTemplate:
    """Derive the template from one encoded pair, since post-processors do not expose theirs."""
    pair = tokenizer.encode("a", "b")
    sequences = np.array([-1 if s is None else s for s in pair.sequence_ids])
    ids, types = np.array(pair.ids, dtype=np.int64), np.array(pair.type_ids, dtype=np.int64)
    first, second = np.flatnonzero(sequences == 0), np.flatnonzero(sequences == 1)
    contiguous = all(len(s) > 0 and s[-1] - s[0] + 1 == len(s) for s in (first, second))
    if not contiguous or first[-1] > second[0]:
        raise ArtifactError(
            f"{artifact.tokenizer_path} cannot be served: "
            "its post-processor has no template for a pair of texts."
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
