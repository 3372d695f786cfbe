"""Owns the engine: from (question, context) to answers; knows no HTTP and no queue."""

import math
from collections.abc import Sequence

import numpy as np

from service.engine.artifact import Artifact
from service.engine.cpu import available_cpus
from service.engine.decoding import Answer as Answer
from service.engine.decoding import Placement, decode, whole_words
from service.engine.kernel import Graph
from service.engine.memory import keep_memory
from service.engine.parameters import Parameters
from service.engine.session import Session
from service.engine.tokenization import TextTokenizer
from service.engine.windowing import Prepared as Prepared
from service.engine.windowing import Window, WindowLogits, build_window, plan_windows
from service.errors import ArtifactError, InvalidInput
from service.settings import Settings

# Most tokens, padding included, of one call of the session.
TOKEN_BUDGET = 384
# Per question: a doc_stride just below max_seq_len would make a window of every token.
MAX_WINDOWS = 4096


class QuestionAnswerer:
    """A loaded artifact. Stateless between calls; any thread may call any method."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int | None = None,
        token_budget: int = TOKEN_BUDGET,
        concurrent: bool = False,
        kernel: bool = True,
    ) -> None:
        """Load tokenizer and model; `threads` None uses every CPU available to this process.

        `concurrent` also loads a single-threaded session, see `infer`; without `kernel` the portable graph
        is used.

        Raises ArtifactError if either cannot be loaded.
        """
        keep_memory()
        self.artifact = artifact
        self.threads = threads or available_cpus()
        self._tokenizer = TextTokenizer(artifact)
        self._session = Session(
            artifact,
            threads=self.threads,
            token_budget=token_budget,
            concurrent=concurrent,
            kernel=kernel,
        )
        self._smoke_test()

    @classmethod
    def with_settings(
        cls, artifact: Artifact, settings: Settings, *, concurrent: bool = False
    ) -> "QuestionAnswerer":
        """An engine configured by `settings`."""
        return cls(
            artifact,
            threads=settings.threads or None,
            token_budget=settings.token_budget,
            concurrent=concurrent,
            kernel=settings.kernel,
        )

    def _smoke_test(self) -> None:
        """Answer a short question; raises ArtifactError if that fails or the logits are not finite."""
        try:
            prepared = self.prepare("Who wrote it?", "Amelia Hart wrote it.", Parameters())
            logits = self._session.run(prepared.windows)
            if not all(np.isfinite(side).all() for found in logits for side in (found.start, found.end)):
                raise ValueError("its logits are not finite")
        except Exception as error:  # ONNX Runtime's exceptions derive from Exception directly
            raise ArtifactError(
                f"The model in {self.artifact.path} cannot answer a first question "
                f"({' '.join(str(error).split()).rstrip('.')}): export it again."
            ) from error

    @property
    def graph(self) -> Graph:
        """The loaded graph, with the reason if it is the portable one."""
        return self._session.graph

    def answer(
        self, items: Sequence[tuple[str, str]], parameters: Parameters | None = None
    ) -> list[list[Answer]]:
        """Answer (question, context) pairs, each with at most top_k answers, best first.

        Raises InvalidInput for an empty text, invalid Unicode, or a question that fills the window.
        """
        prepared = [self.prepare(*item, parameters or Parameters()) for item in items]
        logits = self.infer([window for item in prepared for window in item.windows])
        answers = []
        for item in prepared:
            answers.append(self.decode(item, logits[: len(item.windows)]))
            logits = logits[len(item.windows) :]
        return answers

    def prepare(
        self, question: str, context: str, parameters: Parameters, deadline: float = math.inf
    ) -> Prepared:
        """Tokenize and split into windows. Raises as `answer` does, and DeadlineExceeded.

        `deadline` is a time of time.monotonic.
        """
        for field, text in (("question", question), ("context", context)):
            if not text:
                raise InvalidInput(f"The {field} is empty.", field=field)
        template = self._tokenizer.template
        question_ids = self._tokenizer.tokenize(question, "question", deadline).ids
        if parameters.max_question_len is not None:
            question_ids = question_ids[: parameters.max_question_len]
        tokens = self._tokenizer.tokenize(context, "context", deadline)
        max_seq_len = min(parameters.max_seq_len, self.artifact.max_length)
        room = max_seq_len - template.specials - len(question_ids)  # context tokens per window
        if room < 1:
            question_too_long = max_seq_len - room >= self.artifact.max_length  # for any max_seq_len
            raise InvalidInput(
                f"A window of {max_seq_len} tokens has no room for the context beside a question "
                f"of {len(question_ids)} tokens: "
                + ("" if question_too_long else "raise max_seq_len or ")
                + "shorten the question.",
                field="question" if question_too_long else "parameters.max_seq_len",
            )
        spans = plan_windows(len(tokens.ids), room, parameters.overlap(max_seq_len))
        if len(spans) > MAX_WINDOWS:
            raise InvalidInput(
                f"The context makes {len(spans)} windows, and at most {MAX_WINDOWS} are allowed: "
                "shorten it or lower doc_stride.",
                field="context",
            )
        windows = tuple(
            build_window(template, question_ids, tokens.ids, span, self.artifact.question_first)
            for span in spans
        )
        return Prepared(context, tokens, windows, parameters)

    def infer(self, windows: Sequence[Window], *, narrow: bool = False) -> list[WindowLogits]:
        """Logits of every window, in order; the windows may belong to several questions.

        `narrow` runs single-threaded, so that as many calls as there are cores may run concurrently.
        """
        return self._session.run(windows, narrow=narrow)

    def decode(
        self, prepared: Prepared, logits: Sequence[WindowLogits], place: Placement = whole_words
    ) -> list[Answer]:
        """Answers from the logits of `prepared.windows`, best first; see `decoding.decode`."""
        threshold = prepared.parameters.null_threshold
        if threshold is None:
            threshold = self.artifact.null_threshold or 0.0
        return decode(prepared, logits, threshold, place)
