"""Owns the call forms of the question-answering pipeline that transformers 5.3 removed; knows no HTTP.

They are those of transformers 4.57 (pipelines/question_answering.py): the same inputs are taken, results have
the same shapes, what is refused there is refused here with the same type of exception. The answers are the
engine's with `scoring="per_window"`, upstream's way.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import GeneratorType
from typing import Any

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import MANIFEST_FILE, load_artifact
from service.engine.parameters import Parameters
from service.errors import InvalidInput
from service.settings import Settings

TASK = "question-answering"
_DEFAULTS = Parameters(scoring="per_window")
_NAMES = {field.name for field in fields(Parameters)}
# Of upstream's arguments those that concern torch, the hub, or how inputs are batched; here nothing
# depends on them.
_WITHOUT_EFFECT = {
    *("batch_size", "binary_output", "config", "device", "device_map", "dtype", "feature_extractor"),
    *("framework", "image_processor", "model_kwargs", "modelcard", "num_workers", "padding", "processor"),
    *("revision", "token", "tokenizer", "torch_dtype", "trust_remote_code", "use_auth_token", "use_fast"),
}
# Questions of one call that are tokenized before the first is answered.
_TOGETHER = 32

Result = dict[str, Any] | list[dict[str, Any]]


def pipeline(
    task: str | None = None, model: str | Path | None = None, **options: Any
) -> "QuestionAnsweringPipeline":
    """A question-answering pipeline over an exported model.

    `model` is a folder made by `python -m export`; None takes the setting QA_MODEL, or else the model that
    comes along. `options` are defaults for the parameters of calls; of upstream's others, those that only
    concern torch or the hub are ignored.

    Raises KeyError for another task, ValueError for a model that is no exported one, and ArtifactError for
    one that is damaged.
    """
    if task not in (None, TASK):
        raise KeyError(f"Unknown task {task}: qa_onnx has {TASK} alone.")
    if model is not None and not isinstance(model, str | Path):
        raise ValueError(
            f"model is a {type(model).__name__} and must be the name of a folder: "
            "save it with its tokenizer, and export that folder with 'python -m export'."
        )
    folder = Settings.from_env({"model": model}).model
    if not (folder / MANIFEST_FILE).is_file():
        raise ValueError(
            f"{folder} is no exported model: make one of a hub id or a Hugging Face folder with "
            f"'make export MODEL={model or 'ID'} OUTPUT=FOLDER' in a checkout of qa-onnx, and give "
            "model='FOLDER'."
        )
    return QuestionAnsweringPipeline(folder, **options)


class QuestionAnsweringPipeline:
    """Answers questions by an exported model. Any thread may call it."""

    task = TASK
    # Upstream's are a torch module and a tokenizer; wrappers such as txtai's `Questions` look at both.
    model = tokenizer = None

    def __init__(self, model: str | Path, **options: Any) -> None:
        """Load the exported model in the folder `model`; raises ArtifactError where that cannot be."""
        settings = Settings.from_env({"model": model})
        self._parameters = _parameters(_DEFAULTS, options)
        self._answerer = QuestionAnswerer.with_settings(load_artifact(settings.model), settings)

    @staticmethod
    def create_sample(
        question: str | Sequence[str], context: str | Sequence[str]
    ) -> dict[str, str] | list[dict[str, str]]:
        """One question with its context, or several with as many contexts, to be handed to a call."""
        if isinstance(question, str) and isinstance(context, str):
            return {"question": question, "context": context}
        contexts = [context] * len(question) if isinstance(context, str) else context
        return [{"question": q, "context": c} for q, c in zip(question, contexts, strict=False)]

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answer by `question=` and `context=`, each a text or a list; or by dicts with these keys.

        A result is a dict with score, start, end and answer (`context[start:end] == answer`), or a list of
        them where `top_k` asks for several and there are several. One input gives its result, a list of
        inputs a list of results; a generator or a torch Dataset an iterator, which answers as it is consumed.

        Raises ValueError and KeyError for inputs that cannot be understood, empty texts and parameters out
        of range.
        """
        examples = _examples(inputs, options)
        given = {
            name: value for name, value in options.items() if name not in ("question", "context", "data", "X")
        }
        parameters = _parameters(self._parameters, given)
        if not isinstance(examples, list):
            return self._stream(examples, parameters)
        pairs = [_pair(example) for example in examples]
        if len(pairs) == 1 and isinstance(only := pairs[0], tuple):
            return self._answer([only], parameters)[0]
        flat = [pair for one in pairs for pair in (one if isinstance(one, list) else [one])]
        results: list[Result] = []
        for first in range(0, len(flat), _TOGETHER):
            results += self._answer(flat[first : first + _TOGETHER], parameters)
        return results

    def _stream(self, examples: Iterator[Any], parameters: Parameters) -> Iterator[Result]:
        for example in examples:
            pair = _pair(example)
            if not isinstance(pair, tuple):
                raise ValueError(
                    "An example of a generator or a Dataset must be one question with one context."
                )
            yield self._answer([pair], parameters)[0]

    def _answer(self, pairs: Sequence[tuple[str, str]], parameters: Parameters) -> list[Result]:
        try:
            found = self._answerer.answer(pairs, parameters)
        except InvalidInput as error:
            raise ValueError(error.message) from error
        results = [
            [{"score": a.score, "start": a.start, "end": a.end, "answer": a.answer} for a in answers]
            for answers in found
        ]
        return [result[0] if len(result) == 1 else result for result in results]


def _parameters(defaults: Parameters, options: Mapping[str, Any]) -> Parameters:
    """`defaults` with what `options` say; None says nothing."""
    given = {name: value for name, value in options.items() if value is not None}
    if "topk" in given:  # its name until transformers 4.2
        given.setdefault("top_k", given.pop("topk"))
    if unknown := given.keys() - _NAMES - _WITHOUT_EFFECT - {"topk"}:
        warnings.warn(f"qa_onnx ignores {', '.join(sorted(unknown))}.", UserWarning, stacklevel=3)
    try:
        return replace(defaults, **{name: value for name, value in given.items() if name in _NAMES})
    except InvalidInput as error:
        raise ValueError(error.message) from error


def _examples(inputs: Sequence[Any], options: Mapping[str, Any]) -> Iterator[Any] | list[Any]:
    """The examples of a call in any of its forms; an iterator where results are wanted lazily."""
    if len(inputs) == 1:
        asked = inputs[0]
    elif len(inputs) == 2 and all(isinstance(text, str) for text in inputs):
        asked = {"question": inputs[0], "context": inputs[1]}
    elif inputs:
        asked = list(inputs)
    elif "X" in options or "data" in options:
        asked = options["X"] if "X" in options else options["data"]
    elif "question" in options and "context" in options:
        asked = _pairs(options["question"], options["context"])
    else:
        raise ValueError("Give question= and context=, or dicts with these keys.")
    if isinstance(asked, GeneratorType):
        return asked
    if _is_torch_dataset(asked):
        return iter(asked) if isinstance(asked, Iterable) else (asked[index] for index in range(len(asked)))
    if isinstance(asked, Mapping):
        return [asked]
    if isinstance(asked, Iterable) and not isinstance(asked, str):
        return list(asked)
    raise ValueError("The inputs must be dicts with question and context.")


def _is_torch_dataset(asked: object) -> bool:
    """Whether it is a torch Dataset; torch is not imported for it, since whoever made one has done so."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(asked, data.Dataset)


def _pairs(question: Any, context: Any) -> list[dict[str, Any]]:
    if isinstance(question, str) and isinstance(context, str):
        return [{"question": question, "context": context}]
    if isinstance(question, list) and isinstance(context, str):
        return [{"question": one, "context": context} for one in question]
    if isinstance(question, list) and isinstance(context, list):
        if len(question) != len(context):
            raise ValueError("There are not as many contexts as questions.")
        return [{"question": q, "context": c} for q, c in zip(question, context, strict=True)]
    raise ValueError("question and context must be texts or lists of texts.")


def _pair(example: Any) -> tuple[str, str] | list[tuple[str, str]]:
    """(question, context) of one example; a list where the example holds lists of both."""
    if hasattr(example, "question_text") and hasattr(example, "context_text"):  # transformers' SquadExample
        return str(example.question_text), str(example.context_text)
    if not isinstance(example, Mapping):
        raise ValueError("An input must be a dict with question and context.")
    for name in ("question", "context"):
        if name not in example:
            raise KeyError("An input must be a dict with the keys question and context.")
        if example[name] is None or example[name] == "":
            raise ValueError(f"The {name} is empty.")
    question, context = example["question"], example["context"]
    if isinstance(question, str) and isinstance(context, str):
        return question, context
    if isinstance(question, list):
        return [(one["question"], one["context"]) for one in _pairs(question, context)]
    raise ValueError("question and context must be texts or lists of texts.")
