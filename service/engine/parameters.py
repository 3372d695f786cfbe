"""Owns the parameters of a question, with upstream's names and defaults; knows no text."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from service.errors import InvalidInput

Scoring = Literal["global", "per_window"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Names and defaults of the transformers QuestionAnsweringPipeline (removed in 5.3).

    Lengths are in tokens. `max_seq_len` counts question, part of the context and special tokens, and is
    limited to the model's maximum. `doc_stride` is the OVERLAP of consecutive windows; None, the default,
    means 128, or half of max_seq_len if that is less. Questions longer than `max_question_len` are truncated;
    None, the default, never truncates (upstream truncates only with slow tokenizers). `scoring` and
    `null_threshold` are additions of this project: see `spans.normalise` and `answering` (threshold None: the
    artifact's, else 0, which is upstream's rule). `token_probabilities` adds the probabilities of every
    context token to the best answer, see `decoding.TokenProbabilities`.
    """

    top_k: int = 1
    max_answer_len: int = 15
    max_seq_len: int = 384
    doc_stride: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True
    scoring: Scoring = "global"
    null_threshold: float | None = None
    token_probabilities: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidInput with the field that is out of range."""
        for name in ("top_k", "max_answer_len", "max_seq_len", "max_question_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{name} must be at least 1.", field=f"parameters.{name}")
        if self.doc_stride is not None and not 0 <= self.doc_stride < self.max_seq_len:
            raise InvalidInput(
                f"doc_stride must be at least 0 and less than max_seq_len ({self.max_seq_len}).",
                field="parameters.doc_stride",
            )
        if self.scoring not in get_args(Scoring):
            raise InvalidInput(
                f"scoring must be one of {', '.join(get_args(Scoring))}.",
                field="parameters.scoring",
            )
        if self.null_threshold is not None and not math.isfinite(self.null_threshold):
            raise InvalidInput("null_threshold must be a finite number.", field="parameters.null_threshold")

    def overlap(self, max_seq_len: int) -> int:
        """Overlap of consecutive windows of `max_seq_len` tokens (upstream's rule)."""
        return min(max_seq_len // 2, 128) if self.doc_stride is None else self.doc_stride
