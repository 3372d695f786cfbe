"""Owns the way from a text to token ids with their places in it; knows no windows and no model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from service.engine.artifact import Artifact
from service.engine.wordpiece import PlainWordPiece
from service.errors import ArtifactError, InvalidInput

Ids = npt.NDArray[np.int64]
NO_WORD = -1


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
        self.template = _derive_template(self._tokenizer, artifact)
        self._plain = PlainWordPiece.of(self._tokenizer)

    def tokenize(self, text: str, field: str) -> TokenizedText:
        """Tokenize one text; `field` names it in errors.

        Raises InvalidInput for a text that is not valid Unicode (JSON can carry half of a
        surrogate pair, UTF-8 cannot).
        """
        try:
            if self._plain is not None and (pieces := self._plain.encode(text)) is not None:
                return TokenizedText(pieces[0], pieces[1:3].T, pieces[3])
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise InvalidInput(
                f"The {field} is not valid Unicode text: it holds half of a surrogate pair.",
                field=field,
            ) from None
        return TokenizedText(
            ids=np.array(encoding.ids, dtype=np.int64),
            offsets=np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            words=np.array([NO_WORD if word is None else word for word in encoding.word_ids], dtype=np.int64),
        )


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
