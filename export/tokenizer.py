"""Owns the conversion of a Hugging Face tokenizer to tokenizer.json; knows no graph and no weights."""

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from export.errors import ExportError, reason
from export.source import Source
from service.engine.artifact import TOKENIZER_FILE

_LEAST_LENGTH = 96
# The value of transformers for tokenizers without a maximum length (10^30).
_NO_LENGTH = 10**9
# The name of PreTrainedTokenizerFast in transformers 5.
_ANY_FAST = "TokenizersBackend"


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """Facts about the tokenizer for the manifest."""

    question_first: bool
    special_ids: dict[str, int | None]
    max_length: int


def load_tokenizer(folder: Path, name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of the model `name` in `folder`, saved by transformers 4 or 5.

    Raises ExportError if there is none that the Rust library supports.
    """
    file = folder / TOKENIZER_FILE
    if file.is_file():
        try:
            Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust library raises bare Exception
            version = importlib.metadata.version("tokenizers")
            raise ExportError(
                f"The {TOKENIZER_FILE} of {name} is damaged, or has parts that tokenizers {version}, which "
                f"the service runs, does not know: {reason(error)}."
            ) from error
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}  # optional; transformers reports errors in it
    kind: Any = PreTrainedTokenizerFast if settings.get("tokenizer_class") == _ANY_FAST else AutoTokenizer
    changes: dict[str, Any] = {}
    if isinstance(extra := settings.get("extra_special_tokens"), list):
        # The name since transformers 5; earlier versions used it for named tokens.
        changes = {"extra_special_tokens": {}, "additional_special_tokens": extra}
    try:
        tokenizer = kind.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True, **changes
        )
    except Exception as error:  # conversion of slow tokenizers raises many types
        missing = "" if file.is_file() else f" (the folder has no {TOKENIZER_FILE})"
        raise ExportError(f"The tokenizer of {name} cannot be loaded{missing}: {reason(error)}.") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ExportError(
            f"The tokenizer of {name} has no fast form ({TOKENIZER_FILE}), the only one the service can run."
        )
    return tokenizer


def save_tokenizer(source: Source, folder: Path, max_seq_length: int | None) -> TokenizerFacts:
    """Write tokenizer.json without truncation and padding; returns the facts for the manifest.

    Raises ExportError as `load_tokenizer` does, and for a length above the model's maximum.
    """
    tokenizer = load_tokenizer(source.folder, source.id, trust_remote_code=source.trust_remote_code)
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
    """Maximum tokens of a window: the minimum of the limits of model, tokenizer and user."""
    lengths = [] if tokenizer_length > _NO_LENGTH else [tokenizer_length]
    positions = config.get("max_position_embeddings", -1)
    if positions > 0 and config.get("relative_attention") is not True:
        # Positions start after the padding id in these models, so the first ones are unused.
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
