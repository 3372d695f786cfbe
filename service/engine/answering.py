"""Owns the whole way from (question, context) to answers; knows no HTTP, queue or setting."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from service.engine.artifact import Artifact
from service.engine.cpu import available_cpus
from service.engine.encoder import Encoder
from service.engine.memory import keep_memory
from service.engine.parameters import Parameters
from service.engine.spans import TokenSpan, best_spans, count_spans
from service.engine.tokenization import NO_WORD, TextTokenizer, TokenizedText
from service.engine.windowing import Window, WindowLogits, build_window, plan_windows
from service.errors import ArtifactError, InvalidInput
from service.settings import Settings

if TYPE_CHECKING:
    from service.engine.session import Session

# Most tokens, padding included, of one call of the session.
TOKEN_BUDGET = 384
# One question never becomes more windows than this: a doc_stride just under max_seq_len would
# otherwise turn a page into a window per token.
MAX_WINDOWS = 4096

Place = tuple[int, int, float]  # of a span in the context: start, end, score


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the context: `context[start:end] == answer`, in Unicode code points.

    No answer is the empty text at 0. `score` is a probability, comparable between the answers of
    one context.
    """

    answer: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """One question tokenized and cut into windows, ready for the session."""

    context: str
    tokens: TokenizedText  # of the whole context
    windows: tuple[Window, ...]
    parameters: Parameters

    @property
    def token_count(self) -> int:
        """Tokens the session must process, all windows together."""
        return sum(len(window.ids) for window in self.windows)


class QuestionAnswerer:
    """A loaded artifact. Any thread may call any method; nothing is kept between calls."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int | None = None,
        token_budget: int = TOKEN_BUDGET,
        concurrent: bool = False,
        kernel: bool = True,
    ) -> None:
        """Load tokenizer and model; `threads` None takes every CPU this process may use.

        `concurrent` readies it for narrow runs, see `infer`. `kernel` lets the project's own kernel run
        what it can; without, and for all else, ONNX Runtime runs the graph.

        Raises ArtifactError where either cannot be loaded.
        """
        keep_memory()
        self.artifact = artifact
        self.threads = threads or available_cpus()
        self._tokenizer = TextTokenizer(artifact)
        self._model: Encoder | Session
        if kernel and Encoder.runs(artifact):
            self._model = Encoder(artifact, threads=self.threads)
        else:
            from service.engine import session  # only here: ONNX Runtime takes 50 MB

            self._model = session.Session(
                artifact, threads=self.threads, token_budget=token_budget, concurrent=concurrent
            )
        self._try_out()

    @classmethod
    def with_settings(
        cls, artifact: Artifact, settings: Settings, *, concurrent: bool = False
    ) -> "QuestionAnswerer":
        """As the settings want it."""
        return cls(
            artifact,
            threads=settings.threads or None,
            token_budget=settings.token_budget,
            concurrent=concurrent,
            kernel=settings.kernel,
        )

    def _try_out(self) -> None:
        """Raises ArtifactError where a short question fails: what loads need not run, or give numbers."""
        try:
            prepared = self.prepare("Who wrote it?", "Amelia Hart wrote it.", Parameters())
            # Narrow, for that starts no threads: the process may fork yet.
            logits = self._model.run(prepared.windows, narrow=True)
            if not all(np.isfinite(side).all() for found in logits for side in (found.start, found.end)):
                raise ValueError("its logits are not finite")
        except Exception as error:  # ONNX Runtime has a family of its own
            raise ArtifactError(
                f"The model in {self.artifact.path} cannot answer a first question "
                f"({' '.join(str(error).split()).rstrip('.')}): export it again."
            ) from error

    @property
    def runtime(self) -> str:
        """What runs the model: "kernel" or "onnxruntime"."""
        return "kernel" if isinstance(self._model, Encoder) else "onnxruntime"

    def answer(
        self, items: Sequence[tuple[str, str]], parameters: Parameters | None = None
    ) -> list[list[Answer]]:
        """Answer (question, context) pairs, each with min(top_k, available) spans, best first.

        Raises InvalidInput for an empty text, invalid Unicode, or lengths that leave no room.
        """
        prepared = [self.prepare(*item, parameters or Parameters()) for item in items]
        logits = self.infer([window for item in prepared for window in item.windows])
        answers = []
        for item in prepared:
            answers.append(self.decode(item, logits[: len(item.windows)]))
            logits = logits[len(item.windows) :]
        return answers

    def prepare(self, question: str, context: str, parameters: Parameters) -> Prepared:
        """Tokenize and cut into windows. Raises as `answer` does."""
        for field, text in (("question", question), ("context", context)):
            if not text:
                raise InvalidInput(f"The {field} is empty.", field=field)
        template = self._tokenizer.template
        question_ids = self._tokenizer.tokenize(question, "question").ids
        question_ids = question_ids[: parameters.max_question_len]
        tokens = self._tokenizer.tokenize(context, "context")
        max_seq_len = min(parameters.max_seq_len, self.artifact.max_length)
        room = max_seq_len - template.specials - len(question_ids)  # context tokens per window
        if room < 1:
            raise InvalidInput(
                f"A window of {max_seq_len} tokens has no room for the context beside a question "
                f"of {len(question_ids)} tokens: raise max_seq_len or lower max_question_len.",
                field="parameters.max_seq_len",
            )
        spans = plan_windows(len(tokens.ids), room, parameters.overlap(max_seq_len))
        if len(spans) > MAX_WINDOWS:
            raise InvalidInput(
                f"The context makes {len(spans)} windows where {MAX_WINDOWS} are allowed: "
                "shorten it or lower doc_stride.",
                field="context",
            )
        windows = tuple(
            build_window(template, question_ids, tokens.ids, span, self.artifact.question_first)
            for span in spans
        )
        return Prepared(context, tokens, windows, parameters)

    def infer(self, windows: Sequence[Window], *, narrow: bool = False) -> list[WindowLogits]:
        """Logits of every window, of one question or of many, in the order given.

        `narrow` takes one core, so that as many calls as there are cores may run side by side.
        """
        return self._model.run(windows, narrow=narrow)

    def decode(self, prepared: Prepared, logits: Sequence[WindowLogits]) -> list[Answer]:
        """Turn the logits of `prepared.windows` into answers, best first; never empty."""
        parameters = prepared.parameters
        answers, null_score = _best_answers(prepared, logits)
        if parameters.handle_impossible_answer:
            # Null wins where its log-odds over the best span exceed the threshold; at 0 that is
            # upstream's plain comparison of scores.
            threshold = parameters.null_threshold
            if threshold is None:
                threshold = self.artifact.null_threshold or 0.0
            null = Answer("", 0, 0, null_score)
            rank = null_score * math.exp(min(-threshold, 700.0))  # more would overflow
            above = sum(answer.score >= rank for answer in answers)
            answers.insert(above, null)
        return answers[: parameters.top_k] or [Answer("", 0, 0, 0.0)]


def _best_answers(prepared: Prepared, logits: Sequence[WindowLogits]) -> tuple[list[Answer], float]:
    """Distinct answers, best first: top_k of them, or fewer where there are no more; and the null score.

    As upstream, each window gives its 2 top_k + 10 likeliest spans, and those of equal text (case
    ignored) are one answer with the summed score. Where that leaves fewer than top_k, upstream
    stopped; here the search goes on, and what it finds later changes nothing found before.
    """
    parameters = prepared.parameters
    wanted = parameters.top_k
    count = wanted * 2 + 10 if parameters.align_to_words else wanted
    places, null_score = _place(prepared, logits, count)
    merged = _merge(prepared.context, places)
    while len(merged) < wanted and any(
        count < count_spans(window.last - window.first, parameters.max_answer_len)
        for window in prepared.windows
    ):
        count *= 2
        for key, place in _merge(prepared.context, _place(prepared, logits, count)[0]).items():
            merged.setdefault(key, place)
    best = sorted(merged.values(), key=itemgetter(2), reverse=True)[:wanted]
    return [Answer(prepared.context[place[0] : place[1]], *place) for place in best], null_score


def _place(prepared: Prepared, logits: Sequence[WindowLogits], count: int) -> tuple[list[Place], float]:
    """The `count` likeliest spans of each window in the context, and the null score.

    In the windows' order for per-window scores, as upstream; else the likeliest first, so that of
    equal texts the likeliest place is named.
    """
    parameters = prepared.parameters
    per_window = parameters.scoring == "per_window"
    found, null_score = best_spans(
        prepared.windows, logits, parameters.max_answer_len, count, per_window=per_window
    )
    places = [
        (*_characters(prepared.tokens, window, span, parameters.align_to_words), span.score)
        for window, spans in zip(prepared.windows, found, strict=True)
        for span in spans
    ]
    if not per_window and len(found) > 1:
        places.sort(key=itemgetter(2), reverse=True)
    return places, null_score


def _characters(
    tokens: TokenizedText, window: Window, span: TokenSpan, align_to_words: bool
) -> tuple[int, int]:
    """Code points of a token span, widened to whole words (within the window, as upstream)."""
    first, last = window.first + span.first, window.first + span.last
    word = tokens.words.item  # a plain number
    first_word, last_word = word(first), word(last)
    if align_to_words and first_word != NO_WORD and last_word != NO_WORD:
        while first > window.first and word(first - 1) == first_word:
            first -= 1
        while last + 1 < window.last and word(last + 1) == last_word:
            last += 1
    return tokens.offsets.item(first, 0), tokens.offsets.item(last, 1)


def _merge(context: str, found: Iterable[Place]) -> dict[str, Place]:
    """One place per text, case ignored: the first, with the summed score."""
    merged: dict[str, Place] = {}
    for start, end, score in found:
        key = context[start:end].lower()
        first = merged.get(key)
        merged[key] = (start, end, score) if first is None else (first[0], first[1], first[2] + score)
    return merged
