"""Owns the way from a Hugging Face folder to a plain fp32 graph; knows no fusion, no int8."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimum.exporters.onnx import main_export
from optimum.exporters.tasks import TasksManager
from safetensors import SafetensorError
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, PreTrainedTokenizerFast

from export import storage
from export.errors import ExportError
from export.source import Source
from service.engine.artifact import TOKENIZER_FILE

_LEAST_LENGTH = 96
# transformers puts this where a tokenizer names no length at all (10^30).
_NO_LENGTH = 10**9


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What the manifest must say about the tokenizer."""

    question_first: bool
    special_ids: dict[str, int | None]
    max_length: int


def supported() -> list[str]:
    """Model types optimum can export for question answering."""
    types = TasksManager._SUPPORTED_MODEL_TYPE
    return sorted(
        name for name, exporters in types.items() if "question-answering" in exporters.get("onnx", {})
    )


def convert(source: Source, output: Path) -> None:
    """Write the fp32 graph.

    Raises ExportError for an architecture without an exporter and for weights that do not fit.
    """
    if source.architecture not in supported() and not source.trust_remote_code:
        raise ExportError(
            f"{source.id} is a {source.architecture} model, which cannot be exported for question "
            f"answering: the types that can are {', '.join(supported())}."
        )
    _check_weights(source)
    folder = output.with_suffix(".converted")
    try:
        main_export(
            str(source.folder),
            folder,
            task="question-answering",
            do_validation=False,  # `verify` compares with torch on real text
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{source.id} cannot be converted to ONNX: {first}") from error
    storage.save(storage.load(folder / "model.onnx"), output)
    shutil.rmtree(folder)  # optimum names the weights' file otherwise, and adds files of its own


def _check_weights(source: Source) -> None:
    """Raises ExportError where weights are missing, which transformers would fill with noise."""
    try:
        _, found = AutoModelForQuestionAnswering.from_pretrained(
            source.folder,
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, RuntimeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"The weights of {source.id} cannot be read: {first.rstrip('.:')}.") from error
    if missing := sorted(found["missing_keys"]):
        raise ExportError(
            f"The weights of {source.id} lack {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}, which would be random: fine-tune it first."
        )


def save_tokenizer(source: Source, folder: Path, max_seq_length: int | None) -> TokenizerFacts:
    """Write tokenizer.json, free of truncation and padding, and tell what the manifest needs.

    Raises ExportError where there is no tokenizer the Rust library can run.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call] # transformers'
            source.folder, trust_remote_code=source.trust_remote_code, local_files_only=True
        )
    except Exception as error:  # conversion of slow tokenizers fails in many ways of its own
        raise ExportError(
            f"The tokenizer of {source.id} cannot be loaded ({type(error).__name__}): the folder "
            "needs a tokenizer.json, or files from which transformers can make one."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ExportError(
            f"The tokenizer of {source.id} has no fast form (tokenizer.json), the only one the "
            "service can run."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / TOKENIZER_FILE))
    return TokenizerFacts(
        question_first=tokenizer.padding_side == "right",
        special_ids={
            "cls": tokenizer.cls_token_id,
            "sep": tokenizer.sep_token_id,
            "pad": tokenizer.pad_token_id,
            "unk": tokenizer.unk_token_id,
        },
        max_length=_max_length(source.config, tokenizer.model_max_length, max_seq_length),
    )


def _max_length(config: dict[str, Any], tokenizer_length: int, asked: int | None) -> int:
    """Most tokens of a window: the least of what model, tokenizer and user allow."""
    lengths = [] if tokenizer_length > _NO_LENGTH else [tokenizer_length]
    positions = config.get("max_position_embeddings", -1)
    if positions > 0 and config.get("relative_attention") is not True:
        # These count positions from the padding id on, so the first ones are never used.
        offset = config["pad_token_id"] + 1 if config["model_type"] in _POSITION_OFFSET else 0
        lengths.append(positions - offset)
    if asked is not None:
        if asked < _LEAST_LENGTH:
            raise ExportError(
                f"--max-seq-length is {asked}; a window needs {_LEAST_LENGTH} tokens at least, since "
                "the question alone may take 64."
            )
        if lengths and asked > min(lengths):
            raise ExportError(
                f"--max-seq-length is {asked} and this model takes at most {min(lengths)} tokens."
            )
        lengths.append(asked)
    return min(lengths, default=512)


_POSITION_OFFSET = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "ibert", "data2vec-text"}


def opset(file: Path) -> int:
    """The graph's version of the standard operators."""
    model = storage.load(file, weights=False)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def inputs(file: Path) -> tuple[str, ...]:
    """Names the graph takes."""
    return tuple(value.name for value in storage.load(file, weights=False).graph.input)
