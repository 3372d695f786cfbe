"""Owns the lookup and loading of the base model; knows no data."""

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.activations import ACT2FN

from export.finetune import FinetuneError
from export.finetune.examples import MAX_QUESTION_TOKENS


@dataclass(frozen=True, slots=True)
class Base:
    """A resolved model: `location` for transformers, and fields that identify it."""

    id: str
    location: str
    version: str | None  # of the Python package that contains it
    weights_sha256: str | None  # None for a hub id


def find_base(source: str) -> Base:
    """A local Hugging Face folder, an installed package with a `model/` folder, or a hub id.

    The package is located, not imported, since it may import many others. Raises FinetuneError for a folder
    without a model.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FinetuneError(f"{source} is no Hugging Face model folder: it has no config.json.")
        return Base(folder.resolve().name, str(folder), None, _weights_sha256(folder))
    module = source.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file():
            return Base(source, str(folder), _version(module), _weights_sha256(folder))
    return Base(source, source, None, None)


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return None


def _weights_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load_tokenizer(base: Base) -> PreTrainedTokenizerFast:
    """The fast tokenizer; raises FinetuneError if there is none or it has no CLS or padding token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]  # transformers'
            base.location, use_fast=True
        )
    except (OSError, ValueError) as error:
        raise FinetuneError(_not_loadable(base, "tokenizer", error)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FinetuneError(f"{base.id} has no fast tokenizer, and only those give character offsets.")
    if tokenizer.cls_token_id is None or tokenizer.pad_token_id is None:
        raise FinetuneError(f"The tokenizer of {base.id} has no CLS or no padding token; take an encoder.")
    return tokenizer


def token_limit(tokenizer: PreTrainedTokenizerFast, model: Any) -> int:
    """Maximum tokens of a window, special tokens included, of both tokenizer and model."""
    return int(min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512)))


def check_room(tokenizer: PreTrainedTokenizerFast, max_seq_length: int, doc_stride: int) -> None:
    """Raise FinetuneError if the longest question leaves no room for the overlap and one token."""
    least = MAX_QUESTION_TOKENS + tokenizer.num_special_tokens_to_add(pair=True) + doc_stride + 1
    if max_seq_length < least:
        raise FinetuneError(
            f"Windows of {max_seq_length} tokens are too short: with an overlap of {doc_stride} and "
            f"questions of up to {MAX_QUESTION_TOKENS} tokens, {least} are needed."
        )


def has_answer_head(base: Base) -> bool:
    """Whether `base` has a question-answering head."""
    architectures = AutoConfig.from_pretrained(base.location).architectures or []
    return any(name.endswith("ForQuestionAnswering") for name in architectures)


def load_model(
    base: Base, *, dropout: float | None = None, activation: str | None = None, eager: bool = False
) -> Any:
    """The model in fp32 with a question-answering head, randomly initialized if `base` has none.

    `dropout` overrides every dropout rate of the configuration and `activation` that of the feed-forward
    layers; `eager` selects the plain attention implementation, which torch.compile fuses best. Raises
    FinetuneError if there is no such model or activation.
    """
    try:
        config = AutoConfig.from_pretrained(base.location)
        for name, value in config.to_dict().items():
            if dropout is not None and "dropout" in name and isinstance(value, float):
                setattr(config, name, dropout)
        if activation is not None:
            _set_activation(base, config, activation)
        choice = {"attn_implementation": "eager"} if eager else {}
        return AutoModelForQuestionAnswering.from_pretrained(
            base.location, config=config, dtype=torch.float32, **choice
        )
    except (OSError, ValueError) as error:
        raise FinetuneError(_not_loadable(base, "model", error)) from error


def load_encoder(base: Base) -> Any:
    """The encoder in fp32, without any head; raises FinetuneError if it cannot be loaded."""
    try:
        return AutoModel.from_pretrained(base.location, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise FinetuneError(_not_loadable(base, "model", error)) from error


def _set_activation(base: Base, config: Any, activation: str) -> None:
    if activation not in ACT2FN:
        raise FinetuneError(f"There is no activation {activation}: take one of {', '.join(sorted(ACT2FN))}.")
    for name in ("hidden_act", "activation"):  # the name in DistilBERT
        if isinstance(getattr(config, name, None), str):
            setattr(config, name, activation)
            return
    raise FinetuneError(f"The configuration of {base.id} names no activation that could be replaced.")


def _not_loadable(base: Base, what: str, error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return f"The {what} of {base.id} cannot be loaded: {first}"
